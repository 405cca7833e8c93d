"""MoCo-v2 on ImageNet-1k, 200 epochs: the baseline of the paper's main tables.

Expect, after voc-full: 57.0 / 82.4 / 63.6 (AP / AP50 / AP75); after coco-1x: 38.9 box, 35.4 mask; coco-2x: 40.9, 37.0.
Run: resim-bench pretrain in1k-moco-v2-200ep
"""

_base_ = ["_base_/moco_v2.py", "_base_/in1k.py"]
