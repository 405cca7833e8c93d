"""Mask R-CNN R50-FPN on COCO 2017, the whole pre-trained ResNet frozen, 1x schedule.

Paper: none; it asks of COCO what the frozen-backbone table asks of VOC. The ResNet keeps its weights and its
pre-training statistics; FPN and heads train.
Run: resim-bench transfer coco-1x-frozen --backbone in1k-resim-fpn-200ep-release --data data/coco
Expect: less than coco-1x; no number is reported for it.
It differs from coco-1x by the line below alone.
"""

_base_ = "./coco-1x.py"

model = dict(backbone=dict(frozen_stages=4))
