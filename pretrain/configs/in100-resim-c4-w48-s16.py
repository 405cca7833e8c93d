"""ReSim-C4 on IN-100, windows of 48 px every 16 px: a row of the window ablation.

Expect, after voc-full: 55.8 / 81.2 / 61.6; after voc-frozen: 49.5 / 76.7 / 54.1 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-resim-c4-w48-s16
"""

_base_ = "in100-resim-c4.py"
model = dict(levels=dict(c4=dict(window=48, stride=16)))
