"""Length: ReSim-C4 for 32 epochs, four times as long as mini-resim-c4.

Run: resim-bench study mini-length
"""

_base_ = "mini-resim-c4.py"
epochs = 32
