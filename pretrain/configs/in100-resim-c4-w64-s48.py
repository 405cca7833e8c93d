"""ReSim-C4 on IN-100, windows of 64 px every 48 px: a row of the window ablation.

Expect, after voc-full: 56.0 / 81.0 / 62.7; after voc-frozen: 49.7 / 77.2 / 54.3 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-resim-c4-w64-s48
"""

_base_ = "in100-resim-c4.py"
model = dict(levels=dict(c4=dict(window=64, stride=48)))
