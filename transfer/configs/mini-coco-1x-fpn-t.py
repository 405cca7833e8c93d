"""coco-1x-fpn-t made small: mini-coco-1x with the FPN pre-trained, too.

Paper: none; it asks of the pyramid and of masks what `make mini-study` asks of C4.
Run: resim-bench transfer mini-coco-1x-fpn-t --backbone mini-resim-fpn --data data/mini/coco
Expect: no number; only mini-resim-fpn has a pyramid, and no ReSim run was looked at before the plan.
It differs from mini-coco-1x by the line below alone.
"""

_base_ = "./mini-coco-1x.py"

init_neck = True
