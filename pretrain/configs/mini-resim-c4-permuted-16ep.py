"""Length: permuted windows for 16 epochs, twice as long as mini-resim-c4-permuted.

Run: resim-bench study mini-length
"""

_base_ = "mini-resim-c4-permuted.py"
epochs = 16
