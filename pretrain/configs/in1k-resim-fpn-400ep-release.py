"""in1k-resim-fpn-200ep-release for twice as long.

Expect, after coco-1x-fpn-t: 40.3 box, 36.4 mask AP; after coco-2x-fpn-t: 41.9, 37.9.
Run: resim-bench pretrain in1k-resim-fpn-400ep-release
"""

_base_ = "in1k-resim-fpn-200ep-release.py"
epochs = 400
