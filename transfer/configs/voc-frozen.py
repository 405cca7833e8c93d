"""Faster R-CNN R50-C4 on VOC 07+12, the pre-trained C4 trunk frozen.

Paper: ReSim (arXiv:2103.12902), the frozen-backbone table of IN-100. Its configuration is not in our sources: we read
it as Detectron2's FREEZE_AT=4, which freezes the trunk up to res4 with its pre-training statistics, while res5 starts
from the pre-trained layer4 and trains. `voc-frozen-res5` is the other reading.
Run: resim-bench transfer voc-frozen --backbone in100-resim-c4 --data data/VOCdevkit
Expect: see `resim-bench tables`; of nobody else is this setting in our sources.
It differs from voc-full by the line below alone.
"""

_base_ = "./voc-full.py"

model = dict(backbone=dict(frozen_stages=3))
