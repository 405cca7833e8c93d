"""photos-coco-full with the pre-trained C4 trunk frozen.

Paper: none; the study photos-coco asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-coco-frozen --backbone photos-resim-c4 --data data/coco_small
Expect: what `resim-bench tables photos-coco` shows.
It differs from photos-coco-full by the line below alone.
"""

_base_ = "./photos-coco-full.py"

model = dict(backbone=dict(frozen_stages=3))
