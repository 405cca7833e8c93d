"""voc-full made small: a narrow ResNet-18 C4 on generated scenes of 96 px, a minute on one core.

Paper: none; `make mini-study` asks whether the paper's finding shows at this size.
Run: resim-bench transfer mini-voc-full --backbone mini-resim-c4 --data data/mini/VOCdevkit
Expect: what `resim-bench tables mini` shows.
C4 has stride 4, as in pre-training, and 24 × 24 cells of a scene. Regions are pooled to 6 × 6 cells instead of 14 × 14:
res5 on them takes much of the time.
"""

_base_ = "./voc-full.py"

total_batch = 4
max_iters = 400
precise_bn_iters = 10
expected_data = dict(name="scenes", train_images=400, test_images=200, classes=6)

model = dict(
    backbone=dict(depth=18, strides=(1, 1, 1), base_channels=16),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[3, 6, 12], strides=[4]),
    ),
    roi_head=dict(
        shared_head=dict(depth=18, base_channels=16),
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=6),
            out_channels=64,
            featmap_strides=[4],
        ),
        bbox_head=dict(in_channels=128, roi_feat_size=3, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=50)),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scales = scales = [(256, 84), (256, 96), (256, 108)]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_scale = (256, 96)
data_root = "data/mini/VOCdevkit"
train_dataloader = dict(
    batch_size=total_batch,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(batch_size=total_batch),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(_delete_=True, type="VOCAveragePrecision")
val_evaluator = test_evaluator

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=80),
    dict(type="MultiStepLR", by_epoch=False, milestones=[300, 368], gamma=0.1),
]
custom_hooks = [
    dict(type="BackboneHook", path=None),
    dict(type="PreciseBNHook", num_iters=precise_bn_iters),
    dict(type="Float32Hook"),
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=max_iters))
