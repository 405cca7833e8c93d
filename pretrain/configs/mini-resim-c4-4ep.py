"""Length: ReSim-C4 for 4 epochs, half as long as mini-resim-c4.

Run: resim-bench study mini-length
"""

_base_ = "mini-resim-c4.py"
epochs = 4
