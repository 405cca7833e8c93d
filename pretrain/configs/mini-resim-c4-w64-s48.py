"""ReSim-C4 made small with the ablation's window W64-S48: 16 px every 12, the same cells of C4.

Run: resim-bench study mini-choices
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(window=16, stride=12)))
