"""What MoCo's two Detectron2 recipes, VOC and COCO, have in common: batch, loop, optimiser, hooks."""

custom_imports = dict(imports=["transfer"], allow_failed_imports=False)
default_scope = "mmdet"

# What a user may change, by a name each: `resim-bench transfer` copies it to the places where MMDetection reads it.
total_batch = 16
precise_bn_iters = 200
classes = None  # those of the training annotations
fraction = 1.0  # of the training images, by a fixed list: the same for every trial, a smaller one inside a larger
backbone = None  # a file; `--backbone` of the suite's command line
init_neck = False  # start the feature pyramid from the pre-trained one
precision = "float32"  # strict; tf32 or bfloat16 deviate
recompute = "nothing"  # res5 or blocks: the same numbers in less memory, slower

train_dataloader = dict(
    batch_size=total_batch,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DrawSampler", batch_size=total_batch, group_by_aspect=True, square="tall"),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
)
val_dataloader = test_dataloader

train_cfg = dict(type="IterBasedTrainLoop")
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)

custom_hooks = [
    dict(type="BackboneHook", path=None),
    dict(type="PreciseBNHook", num_iters=precise_bn_iters),
    dict(type="Float32Hook"),
]
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5000),
)
log_processor = dict(by_epoch=False)
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl"))
