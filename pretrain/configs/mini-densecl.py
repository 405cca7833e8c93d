"""DenseCL made small, on generated scenes. No row stands on it.

Run: resim-bench pretrain mini-densecl
"""

_base_ = ["_base_/small_densecl.py", "_base_/scenes.py"]
