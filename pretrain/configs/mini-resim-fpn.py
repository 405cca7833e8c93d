"""ReSim-FPN made small: the paper's windows in cells, 3 every 2 on P4 and 4 every 3 on P3, both of stride 4 here.

Run: resim-bench study mini-choices
"""

_base_ = ["_base_/small_resim_fpn.py", "_base_/scenes.py"]
