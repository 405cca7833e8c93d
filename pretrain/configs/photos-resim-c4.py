"""ReSim-C4 of mini on photographs.

Run: resim-bench study photos-cards
"""

_base_ = ["_base_/small_resim_c4.py", "_base_/caltech101.py"]
