"""mini-coco-1x twice as long: coco-2x made small.

Paper: none; it asks of the pyramid and of masks what `make mini-study` asks of C4.
Run: resim-bench transfer mini-coco-2x --backbone mini-resim-fpn --data data/mini/coco
Expect: more than mini-coco-1x; the pilot in docs/mini.md has not run it.
It differs from mini-coco-1x by the schedule below alone.
"""

_base_ = "./mini-coco-1x.py"

max_iters = 1440
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type="MultiStepLR", by_epoch=False, milestones=[960, 1280], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
