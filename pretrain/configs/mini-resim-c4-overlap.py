"""Control: the grid of windows anchored at the corner of the views' overlap, as the summary's words have it.

Run: resim-bench study mini-choices
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(anchor="overlap")))
