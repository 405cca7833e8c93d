"""Faster R-CNN R50-C4 on VOC 07+12 as Goyal et al. (2019) fine-tune it: norms, stem and res2 frozen, no extra norm.

Paper: Jigsaw and Rotation of the IN-1k VOC table, inferred; the protocol is vissl's (docs/sources.md), voc0712/iccv19,
with Detectron2's defaults for what it leaves out.
Run: resim-bench transfer voc-goyal19 --backbone given-jigsaw --data data/VOCdevkit
Expect: 48.9 / 75.1 / 52.9 from Jigsaw, 46.3 / 72.5 / 49.3 from Rotation (AP / AP50 / AP75).
It differs from voc-full by what stands below alone.
"""

_base_ = "./voc-full.py"

max_iters = 25000
precise_bn_iters = 0

norm_cfg = dict(type="BN", requires_grad=False)
model = dict(
    backbone=dict(frozen_stages=1, norm_cfg=norm_cfg, norm_eval=True),
    roi_head=dict(
        shared_head=dict(
            _delete_=True,
            type="ResLayer",
            depth=50,
            stage=3,
            stride=2,
            dilation=1,
            style="pytorch",
            norm_cfg=norm_cfg,
            norm_eval=True,
        )
    ),
)

custom_hooks = [_base_.custom_hooks[0], dict(type="PreciseBNHook", num_iters=0), _base_.custom_hooks[2]]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type="MultiStepLR", by_epoch=False, milestones=[17000], gamma=0.1),
]
