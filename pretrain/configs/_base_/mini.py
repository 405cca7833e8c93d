"""MoCo-v2 made small: generated scenes, ResNet-18, a few minutes on two cores.

Stage 2 keeps its stride at 1, so that C4 has stride 8 and a view of 80 px has 10 x 10 cells of C4, near the 14 x 14
of the paper. The queue is a third of the images: a longer one often holds the query's own image as a negative.
"""

_base_ = "moco_v2.py"
dataset = dict(name="scenes", root="data/mini/imagefolder", images=1600, classes=1)
model = dict(
    backbone=dict(depth=18, strides=(1, 1, 2, 2)),
    queue=512,
    momentum=0.99,
    bn_group=16,
)
views = dict(size=80, blur_sigma=(0.1, 0.7))
batch = 32
epochs = 3
optimizer = dict(lr=0.03)
workers = 0
log_interval = 32
