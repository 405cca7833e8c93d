"""Control: the release's dense negatives, every position of all key maps.

Run: resim-bench study mini-choices
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(negatives="dense")))
