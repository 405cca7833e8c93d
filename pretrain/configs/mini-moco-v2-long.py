"""Control: MoCo-v2 for as long as ReSim-C4 takes, 10 epochs instead of 8.

Run: resim-bench study mini-controls
"""

_base_ = "mini-moco-v2.py"
epochs = 10
