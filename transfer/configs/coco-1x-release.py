"""Mask R-CNN R50-FPN on COCO 2017 as ReSim's released configuration has it, 1x schedule.

Paper: ReSim's released code; its configuration leaves FREEZE_AT and PRECISE_BN at Detectron2's defaults: stem and res2
keep their pre-training weights and statistics, and there is no precise batch norm.
Run: resim-bench transfer coco-1x-release --backbone in1k-resim-fpn-200ep-release --data data/coco
Expect: about what coco-1x expects; by which of the two the paper's numbers were measured is not in our sources.
It differs from coco-1x by the freeze and by precise batch norm alone.
"""

_base_ = "./coco-1x.py"

model = dict(backbone=dict(frozen_stages=1))
precise_bn_iters = 0
custom_hooks = [_base_.custom_hooks[0], dict(type="PreciseBNHook", num_iters=0), _base_.custom_hooks[2]]
