"""Mask R-CNN R50-FPN on COCO 2017, every layer fine-tuned, 2x schedule (180k iterations).

Paper: ReSim (arXiv:2103.12902), the COCO table, 2x columns.
Run: resim-bench transfer coco-2x --backbone in1k-resim-fpn-200ep-release --data data/coco
Expect: box AP 40.9, AP50 61.5, AP75 44.6 and mask AP 37.0, AP50 58.4, AP75 39.6 from MoCo-v2's 200 epochs on ImageNet;
41.4, 61.8, 45.4 and 37.5, 59.1, 40.4 from ReSim-FPN's; 36.7, 56.7, 40.0 and 33.7, 53.8, 35.9 from no pre-training.
It differs from coco-1x by the schedule below alone.
"""

_base_ = "./coco-1x.py"

max_iters = 180000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type="MultiStepLR", by_epoch=False, milestones=[120000, 160000], gamma=0.1),
]
