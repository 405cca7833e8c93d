"""coco-1x made small: Mask R-CNN on a narrow ResNet-18 with FPN, on generated scenes of 96 px.

Paper: none; it asks of the pyramid and of masks what `make mini-study` asks of C4.
Run: resim-bench transfer mini-coco-1x --backbone mini-resim-fpn --data data/mini/coco
Expect: what the pilot in docs/mini.md found.
Widths are a quarter of coco-1x's, the mask head's an eighth, and what is in pixels an eighth, as 96 px are of 800:
anchors of 4, 8, 16, 32 and 64 px on P2 to P6; regions below 14 px lie on P2, below 28 on P3, below 56 on P4, and the
others on P5 (`finest_scale`).
C2 to C4 have stride 4, as in pre-training, and C5 has 8, so that P2 to P6 have strides 4, 4, 4, 8 and 16: coco-1x's own
rules would give P2 to P4 the same anchors and put every region on P2. Nine in ten objects have 13 to 44 px: anchors
find them on P4 and P5, and their regions lie a level or two below, as in coco-1x.
"""

_base_ = "./coco-1x.py"

total_batch = 4
max_iters = 720
precise_bn_iters = 10
expected_data = dict(name="scenes", train_images=400, test_images=200, classes=6)

scales = [(256, 84), (256, 96), (256, 108)]
test_scale = (256, 96)

model = dict(
    data_preprocessor=dict(pad_size_divisor=8),
    backbone=dict(depth=18, strides=(1, 1, 1, 2), base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(base_sizes=[4, 8, 16, 32, 64], scales=[1], strides=[4, 4, 4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 4, 4, 8], finest_scale=7),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6),
        mask_roi_extractor=dict(out_channels=64, featmap_strides=[4, 4, 4, 8], finest_scale=7),
        mask_head=dict(in_channels=64, conv_out_channels=32, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50)),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scales = scales
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_scale
data_root = "data/mini/coco"
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
test_evaluator = dict(data_root=data_root)
val_evaluator = dict(data_root=data_root)

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=81),
    dict(type="MultiStepLR", by_epoch=False, milestones=[480, 640], gamma=0.1),
]
custom_hooks = [
    _base_.custom_hooks[0],
    dict(type="PreciseBNHook", num_iters=precise_bn_iters),
    _base_.custom_hooks[2],
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
