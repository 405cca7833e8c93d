"""MoCo-v2 made small: generated scenes, a ResNet-18 of a quarter of the width, four minutes on one core.

Views of 56 px and stages 2 to 4 at stride 4 give the paper's 14 x 14 cells of C4, so that every window keeps its size
in cells. The queue is a quarter of the images: a longer one often holds the query's own image as a negative.
"""

_base_ = "moco_v2.py"
dataset = dict(name="scenes", root="data/mini/imagefolder", images=4000, classes=1)
model = dict(
    backbone=dict(depth=18, strides=(1, 1, 1, 2), width=16),
    queue=1024,
    momentum=0.99,
    bn_group=32,
)
# As the first edition of the study ran: a sampled Gaussian, which does next to nothing to views of this size.
views = dict(
    _delete_=True,
    size=56,
    scale=(0.2, 1.0),
    flip="independent",
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_p=0.8,
    grayscale_p=0.2,
    blur_sigma=(0.1, 0.5),
    blur_p=0.5,
    photometric=("jitter", "grayscale", "blur"),
)
batch = 64
epochs = 8
optimizer = dict(lr=0.06)
workers = 0
log_interval = 50
monitor = dict(data="data/mini/VOCdevkit", size=96)
