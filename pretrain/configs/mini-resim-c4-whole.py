"""Control: one window, the whole view, so that the region loss is a second image loss on C4.

Run: resim-bench study mini-controls
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(anchor="view")))
