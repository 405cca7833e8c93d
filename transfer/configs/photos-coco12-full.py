"""mini-coco-1x on a small part of COCO, its 80 categories taken as the 12 supercategories; boxes and masks.

Paper: none; the study photos-coco asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-coco12-full --backbone photos-resim-c4 --data data/coco_small
Expect: no number yet; sizes and length have not been tried (docs/controls.md).
208 images to train on and 80 to test, scaled to a short side of 128 px: too few to learn 80 categories. What is in
pixels is 0.16 of coco-1x's, as 128 px are of 800: anchors of 5, 10, 20, 40 and 80 px, and `finest_scale`.
"""

_base_ = "./mini-coco-1x.py"

expected_data = dict(name="a part of COCO 2017", train_images=208, test_images=80, classes=12)

scales = [(256, 112), (256, 128), (256, 144)]
test_scale = (256, 128)

model = dict(
    rpn_head=dict(anchor_generator=dict(base_sizes=[5, 10, 20, 40, 80])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=9),
        bbox_head=dict(num_classes=12),
        mask_roi_extractor=dict(finest_scale=9),
        mask_head=dict(num_classes=12),
    ),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scales = scales
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_scale
data_root = "data/coco_small"
train_dataloader = dict(
    dataset=dict(type="COCOSupercategories", data_root=data_root, pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=1,  # sizes differ
    dataset=dict(type="COCOSupercategories", data_root=data_root, pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(data_root=data_root, folder="COCOSupercategories")
val_evaluator = dict(data_root=data_root, folder="COCOSupercategories")
