"""photos-coco-person-full with the whole pre-trained ResNet frozen.

Paper: none; the study photos-coco asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-coco-person-frozen --backbone photos-resim-c4 --data data/coco_small
Expect: 1 box AP from MoCo-v2, as its pilot found (docs/controls.md).
It differs from photos-coco-person-full by the line below alone.
"""

_base_ = "./photos-coco-person-full.py"

model = dict(backbone=dict(frozen_stages=4))
