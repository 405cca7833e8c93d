"""voc-full made small: a ResNet-18 C4 on generated scenes of 128 px, a minute on two cores.

Paper: none; it shows that the pipeline works and whether the methods differ at this size.
Run: resim-bench transfer mini-voc-full --backbone mini-resim-c4 --data data/mini/VOCdevkit
Expect: nothing reported.
C4 has stride 8, and 16 × 16 cells of a 128 px scene: about the paper's 14 × 14.
"""

_base_ = "./voc-full.py"

total_batch = 4
max_iters = 100
precise_bn_iters = 10
expected_data = dict(name="scenes", train_images=400, test_images=100, classes=6)

model = dict(
    backbone=dict(depth=18, strides=(1, 1, 2)),
    rpn_head=dict(
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(scales=[2, 4, 8], strides=[8]),
    ),
    roi_head=dict(
        shared_head=dict(depth=18),
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=4),
            out_channels=256,
            featmap_strides=[8],
        ),
        bbox_head=dict(in_channels=512, roi_feat_size=2, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=50)),
)

train_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(256, 112), (256, 128), (256, 144)],
        keep_ratio=True,
        backend="pillow",
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="Resize", scale=(256, 128), keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
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

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", by_epoch=False, milestones=[75, 92], gamma=0.1),
]
custom_hooks = [
    dict(type="BackboneHook", path=None),
    dict(type="PreciseBNHook", num_iters=precise_bn_iters),
    dict(type="Float32Hook"),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
