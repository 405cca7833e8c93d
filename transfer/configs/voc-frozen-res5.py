"""Faster R-CNN R50-C4 on VOC 07+12, res5 frozen with the C4 trunk.

Paper: the second reading of ReSim's frozen-backbone table ("only the RPN and object classification head is
finetuned"): layer4 keeps its weights and statistics, too; the extra norm behind it trains.
Run: resim-bench transfer voc-frozen-res5 --backbone in100-resim-c4 --data data/VOCdevkit
Expect: less than voc-frozen; no number is reported for it.
It differs from voc-frozen by the line below alone.
"""

_base_ = "./voc-frozen.py"

model = dict(roi_head=dict(shared_head=dict(frozen=True)))
