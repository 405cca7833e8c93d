"""Control: each window is compared with another of its image; all else is mini-resim-c4's.

Run: resim-bench study mini-controls
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(positives="permuted")))
