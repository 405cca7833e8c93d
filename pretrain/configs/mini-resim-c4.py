"""ReSim-C4 made small: W48-S32 is 12 px every 8 px, the same cells of C4.

Run: resim-bench mini
"""

_base_ = ["_base_/small_resim_c4.py", "_base_/scenes.py"]
