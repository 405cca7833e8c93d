"""MoCo's linear classification made small, for the trunks of mini-* and photos-*.

Its schedule is the full one made short, its learning rate the best of 0.03, 0.3 and 3 for an untrained trunk after 100
iterations on Caltech-101: at MoCo's 30 these small networks diverge. Views are as large as in the pre-training.
"""

_base_ = "_base_.py"
epochs = 20
milestones = (12, 16)
optimizer = dict(lr=0.03)
views = dict(size=56)
test_resize = 64
