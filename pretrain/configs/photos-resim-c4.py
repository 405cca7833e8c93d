"""ReSim-C4 of mini on photographs.

Run: resim-bench study photos-cards
"""

_base_ = ["_base_/small_resim_c4.py", "_base_/caltech101.py"]
views = dict(blur="gaussian")  # sampled, as the study ran: it does next to nothing to views of this size
