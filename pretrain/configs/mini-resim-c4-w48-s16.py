"""ReSim-C4 made small with the ablation's window W48-S16: 12 px every 4, the same cells of C4.

Run: resim-bench study mini-choices
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(window=12, stride=4)))
