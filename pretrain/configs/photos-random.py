"""Random init. of mini, its batch-norm statistics calibrated on photographs.

Run: resim-bench study photos-cards
"""

_base_ = ["_base_/small_random.py", "_base_/caltech101.py"]
epochs = 0
views = dict(blur="gaussian")  # sampled, as the study ran: it does next to nothing to views of this size
