"""MoCo-v2 made small, on generated scenes.

Run: resim-bench mini
"""

_base_ = "_base_/mini.py"
