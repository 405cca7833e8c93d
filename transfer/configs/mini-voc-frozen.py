"""voc-frozen made small: mini-voc-full with the pre-trained C4 trunk frozen.

Paper: none; it shows that the pipeline works and whether the methods differ at this size.
Run: resim-bench transfer mini-voc-frozen --backbone mini-resim-c4 --data data/mini/VOCdevkit
Expect: nothing reported.
It differs from mini-voc-full by the line below alone.
"""

_base_ = "./mini-voc-full.py"

model = dict(backbone=dict(frozen_stages=3))
