"""MoCo-v2 made small: generated scenes, ResNet-18, a few minutes on two cores.

Stage 2 keeps its stride at 1, so that C4 has stride 8 and a view of 96 px has 12 x 12 cells of C4, near the 14 x 14
of the paper. The queue is half the number of images: a longer one holds the query's own image as a negative.
"""

_base_ = "moco_v2.py"
dataset = dict(name="scenes", root="data/mini/imagefolder", images=2048, classes=1)
model = dict(
    backbone=dict(depth=18, strides=(1, 1, 2, 2)),
    view_size=96,
    queue=1024,
    momentum=0.99,
    bn_group=32,
)
views = dict(size=96, blur_sigma=(0.1, 0.9))
batch = 64
epochs = 6
optimizer = dict(lr=0.06)
workers = 0
log_interval = 16
