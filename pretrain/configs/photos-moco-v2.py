"""MoCo-v2 of mini on photographs.

Run: resim-bench study photos-cards
"""

_base_ = ["_base_/small_moco_v2.py", "_base_/caltech101.py"]
views = dict(blur="gaussian")  # sampled, as the study ran: it does next to nothing to views of this size
