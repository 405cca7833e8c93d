"""mini-coco-1x on a small part of COCO, persons alone, three times as long; boxes and masks.

Paper: none; the study photos-coco asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-coco-person-full --backbone photos-resim-c4 --data data/coco_small
Expect: little, as docs/controls.md lists of what was tried: 1 box AP from MoCo-v2 with a frozen ResNet, 0.2 from random
initialisation in a third of the time.
208 images to train on, of which 104 have a person, and 80 to test, scaled to a short side of 128 px: too few to learn
80 categories, or their 12 supercategories. What is in pixels is 0.16 of coco-1x's, as 128 px are of 800: anchors of 5,
10, 20, 40 and 80 px, and `finest_scale`.
"""

_base_ = "./mini-coco-1x.py"

max_iters = 2160
expected_data = dict(name="a part of COCO 2017", train_images=104, test_images=80, classes=1)

scales = [(256, 112), (256, 128), (256, 144)]
test_scale = (256, 128)

model = dict(
    rpn_head=dict(anchor_generator=dict(base_sizes=[5, 10, 20, 40, 80])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=9),
        bbox_head=dict(num_classes=1),
        mask_roi_extractor=dict(finest_scale=9),
        mask_head=dict(num_classes=1),
    ),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scales = scales
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_scale
data_root = "data/coco_small"
train_dataloader = dict(
    dataset=dict(type="COCOPersons", data_root=data_root, pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=1,  # sizes differ
    dataset=dict(type="COCOPersons", data_root=data_root, pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(data_root=data_root, folder="COCOPersons")
val_evaluator = dict(data_root=data_root, folder="COCOPersons")

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type="MultiStepLR", by_epoch=False, milestones=[1440, 1920], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
