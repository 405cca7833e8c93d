"""MoCo's linear classification: a linear layer on the frozen trunk's pooled C5.

Values: facebookresearch/moco, main_lincls.py (docs/sources.md).
"""

batch = 256
epochs = 100
milestones = (60, 80)
optimizer = dict(type="SGD", lr=30.0, momentum=0.9, weight_decay=0.0)
views = dict(
    size=224,
    scale=(0.08, 1.0),
    flip="independent",
    jitter=(0.0, 0.0, 0.0, 0.0),
    jitter_p=0.0,
    grayscale_p=0.0,
    blur_sigma=(0.1, 0.1),
    blur_p=0.0,
    photometric=(),
)
test_resize = 256  # the short side; then the middle of views.size
held_out = 0.0  # of each class, where the data set has no val
test_images = None  # of val, where it is what the data set's name says
max_iters = None
workers = 8
log_interval = 50
published = dict()
