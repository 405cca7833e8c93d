"""DenseCL on ImageNet-1k, 200 epochs; the rows take the released weights. No row stands on it.

Expect, after voc-full: 58.7 / 82.8 / 65.2 (AP / AP50 / AP75); after coco-1x: 39.4 box, 35.6 mask; coco-2x: 41.2, 37.3.
Run: resim-bench pretrain in1k-densecl-200ep
"""

_base_ = ["_base_/densecl.py", "_base_/in1k.py"]
