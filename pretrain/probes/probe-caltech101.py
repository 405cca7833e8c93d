"""Linear classification of Caltech-101, a tenth of each class held out by a seeded list; some minutes on two cores.

Run: resim-bench probe photos-moco-v2
"""

_base_ = "_small_.py"
dataset = dict(name="caltech101", root="data/caltech101", images=7276, classes=101)
held_out = 0.1
workers = 2
