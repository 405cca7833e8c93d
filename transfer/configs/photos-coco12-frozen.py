"""photos-coco12-full with the whole pre-trained ResNet frozen.

Paper: none; the study photos-coco asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-coco12-frozen --backbone photos-resim-c4 --data data/coco_small
Expect: no number yet; sizes and length have not been tried (docs/controls.md).
It differs from photos-coco12-full by the line below alone.
"""

_base_ = "./photos-coco12-full.py"

model = dict(backbone=dict(frozen_stages=4))
