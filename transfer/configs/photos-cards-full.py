"""mini-voc-full on photographs of playing cards.

Paper: none; the study photos-cards asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-cards-full --backbone photos-resim-c4 --data data/cards/VOCdevkit
Expect: what `resim-bench tables photos-cards` shows.
296 photographs to train on and 67 to test, scaled to a short side of 128 px.
Where MMDetection differs from Detectron2 (RPN targets and normaliser, empty boxes, groups of square images), this is
MMDetection's: the study ran so.
"""

_base_ = "./mini-voc-full.py"

expected_data = dict(name="playing cards", train_images=296, test_images=67, classes=6)

# A card is 50 px, from a quarter to half of the short side; in COCO, objects go down to a few pixels.
model = dict(
    rpn_head=dict(type="RPNHead", anchor_generator=dict(scales=[3, 6, 12, 24])),
    roi_head=dict(bbox_head=dict(type="BBoxHead")),
    train_cfg=dict(rpn=dict(assigner=dict(type="MaxIoUAssigner"))),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scales = scales = [(256, 112), (256, 128), (256, 144)]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_scale = (256, 128)
data_root = "data/cards/VOCdevkit"
train_dataloader = dict(
    sampler=dict(_delete_=True, type="DrawSampler", batch_size=_base_.total_batch, group_by_aspect=True),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
test_dataloader = dict(batch_size=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))  # sizes differ
val_dataloader = test_dataloader
