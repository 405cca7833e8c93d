"""ReSim-C4 of mini on photographs: Caltech-101 scaled to a short side of 128 px.

Nearly as many iterations as on the scenes.

Run: resim-bench study photos-cards
"""

_base_ = "mini-resim-c4.py"
dataset = dict(name="caltech101", root="data/caltech101", images=7276, classes=101)
epochs = 4
