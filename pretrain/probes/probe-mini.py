"""Linear classification of the objects of mini's scenes, cut out by their boxes: six classes, a minute on two cores.

Its schedule is the full one made short, its learning rate the best of 0.03, 0.3 and 3 for an untrained trunk after 100
iterations on Caltech-101: at MoCo's 30 these small networks diverge. Views are as large as in pre-training.
Run: resim-bench probe mini-moco-v2
"""

_base_ = "_base_.py"
dataset = dict(name="objects", root="data/mini-objects", images=1984, classes=6)
batch = 64
epochs = 20
milestones = (12, 16)
optimizer = dict(lr=0.03)
views = dict(size=56)
test_resize = 64
workers = 0
