"""coco-1x-frozen made small: mini-coco-1x with the whole pre-trained ResNet frozen.

Paper: none; it asks of the pyramid and of masks what `make mini-study` asks of C4.
Run: resim-bench transfer mini-coco-1x-frozen --backbone mini-resim-fpn --data data/mini/coco
Expect: less than mini-coco-1x, as the pilot in docs/mini.md found.
It differs from mini-coco-1x by the line below alone.
"""

_base_ = "./mini-coco-1x.py"

model = dict(backbone=dict(frozen_stages=4))
