"""MoCo-v2 of mini on photographs.

Run: resim-bench study photos-cards
"""

_base_ = ["_base_/small_moco_v2.py", "_base_/caltech101.py"]
