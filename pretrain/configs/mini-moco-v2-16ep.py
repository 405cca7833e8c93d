"""Length: MoCo-v2 for 16 epochs, twice as long as mini-moco-v2.

Run: resim-bench study mini-length
"""

_base_ = "mini-moco-v2.py"
epochs = 16
