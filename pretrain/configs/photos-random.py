"""Random init. of mini, its batch-norm statistics calibrated on photographs.

Run: resim-bench study photos-cards
"""

_base_ = "mini-random.py"
dataset = dict(name="caltech101", root="data/caltech101", images=7276, classes=101)
