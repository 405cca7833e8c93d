"""Random init. of mini, its batch-norm statistics calibrated on photographs.

Run: resim-bench study photos-cards
"""

_base_ = ["_base_/small_random.py", "_base_/caltech101.py"]
epochs = 0
