"""MoCo-v2: the baseline, and the base of every other method; a recipe is a method and its data.

Values: facebookresearch/moco, README and code. One process trains what 8 GPUs of 32 images did: batch norm in groups.
"""

model = dict(
    type="MoCo",
    backbone=dict(depth=50, strides=(1, 2, 2, 2)),
    dim=128,
    queue=65536,
    momentum=0.999,
    temperature=0.2,
    levels=dict(),  # with levels it is ReSim
    instance_weight=1.0,
    bn_group=32,
)
views = dict(
    size=224,
    scale=(0.2, 1.0),
    flip="independent",
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_p=0.8,
    grayscale_p=0.2,
    blur_sigma=(0.1, 2.0),
    blur_p=0.5,
    blur="boxes",
    photometric=("jitter", "grayscale", "blur"),
)
batch = 256  # in total, over all processes
max_iters = None  # stop after so many iterations instead
optimizer = dict(type="SGD", lr=0.03, momentum=0.9, weight_decay=1e-4)
milestones = ()  # none: cosine by epoch
keep = ()  # epochs after which a backbone is left, too, as <id>@<epoch>ep: the middle of the cosine
precision = "float32"  # as it is written; "tf32" or "bfloat16" are faster on a GPU, and deviate
micro_batch = None  # queries encoded at a time, of whole batch-norm groups: the same step in less memory
workers = 8  # a process
log_interval = 50
monitor = dict(every=0, data="data/VOCdevkit", images=100, size=224)  # every: epochs, 0 for never; pretrain/monitor.py
