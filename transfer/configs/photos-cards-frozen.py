"""photos-cards-full with the pre-trained C4 trunk frozen.

Paper: none; the study photos-cards asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-cards-frozen --backbone photos-resim-c4 --data data/cards/VOCdevkit
Expect: what `resim-bench tables photos-cards` shows.
It differs from photos-cards-full by the line below alone.
"""

_base_ = "./photos-cards-full.py"

model = dict(backbone=dict(frozen_stages=3))
