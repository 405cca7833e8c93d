"""Linear classification of Caltech-101, a tenth of each class held out by a seeded list; some minutes on two cores.

Its schedule is the full one made short, its learning rate the best of 0.03, 0.3 and 3 for an untrained trunk after 100
iterations on Caltech-101: at MoCo's 30 these small networks diverge. Views are as large as in the pre-training of
photos-*.
Run: resim-bench probe photos-moco-v2
"""

_base_ = "_base_.py"
dataset = dict(name="caltech101", root="data/caltech101", images=7276, classes=101)
held_out = 0.1
epochs = 20
milestones = (12, 16)
optimizer = dict(lr=0.03)
views = dict(size=56)
test_resize = 64
workers = 2
