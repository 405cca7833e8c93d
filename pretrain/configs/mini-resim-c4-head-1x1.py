"""Control: a 1 x 1 convolution as region head.

Run: resim-bench study mini-choices
"""

_base_ = "mini-resim-c4.py"
model = dict(levels=dict(c4=dict(head="conv1x1")))
