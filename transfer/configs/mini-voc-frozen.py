"""voc-frozen made small: mini-voc-full with the pre-trained C4 trunk frozen.

Paper: none; `make mini-study` asks whether the paper's finding shows at this size.
Run: resim-bench transfer mini-voc-frozen --backbone mini-resim-c4 --data data/mini/VOCdevkit
Expect: what `resim-bench tables mini` shows.
It differs from mini-voc-full by the line below alone.
"""

_base_ = "./mini-voc-full.py"

model = dict(backbone=dict(frozen_stages=3))
