"""Length: permuted windows for 32 epochs, four times as long as mini-resim-c4-permuted.

Run: resim-bench study mini-length
"""

_base_ = "mini-resim-c4-permuted.py"
epochs = 32
