"""ReSim-C4 on ImageNet-1k, 200 epochs, windows of 48 px every 32 px.

Expect, after voc-full: 58.7 / 83.1 / 66.3 (AP / AP50 / AP75); after coco-1x: 39.3 box, 35.7 mask; coco-2x: 41.1, 37.1.
Run: resim-bench pretrain in1k-resim-c4-200ep
"""

_base_ = ["_base_/resim_c4.py", "_base_/in1k.py"]
