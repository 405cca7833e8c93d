"""MoCo-v2 made small, on generated scenes.

Run: resim-bench mini
"""

_base_ = ["_base_/small_moco_v2.py", "_base_/scenes.py"]
