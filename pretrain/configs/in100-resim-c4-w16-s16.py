"""ReSim-C4 on IN-100, windows of 16 px every 16 px: a row of the window ablation.

Expect, after voc-full: 55.0 / 80.7 / 61.3; after voc-frozen: 48.7 / 76.0 / 53.2 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-resim-c4-w16-s16
"""

_base_ = "in100-resim-c4.py"
model = dict(levels=dict(c4=dict(window=16, stride=16)))
