"""MoCo-v2 made small: a ResNet-18 of a quarter of the width, four minutes on one core.

Views of 56 px and stages 1 to 3 at stride 4 give the paper's 14 x 14 cells of C4, so that every window keeps its size
in cells. The queue is a quarter of the scenes: a longer one often holds the query's own image as a negative.
"""

_base_ = "moco_v2.py"
model = dict(backbone=dict(depth=18, strides=(1, 1, 1, 2), width=16), queue=1024, momentum=0.99)
views = dict(size=56, blur_sigma=(0.1, 0.5))  # a quarter of the view's size, so of sigma's
batch = 64
optimizer = dict(lr=0.06)
workers = 0
monitor = dict(data="data/mini/VOCdevkit", size=96)
