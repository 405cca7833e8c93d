"""ReSim-FPN on ImageNet-1k, 200 epochs: P4 with windows W48-S32, P3 with W32-S24.

Expect, after voc-full: 59.2 / 82.9 / 65.9 (AP / AP50 / AP75); after coco-1x: 39.5 box, 35.8 mask; coco-2x: 41.4, 37.5;
with the pyramid's weights, after coco-1x-fpn-t: 39.8 box, 36.0 mask; coco-2x-fpn-t: 41.4, 37.5.
Run: resim-bench pretrain in1k-resim-fpn-200ep
"""

_base_ = ["_base_/resim_fpn.py", "_base_/in1k.py"]
