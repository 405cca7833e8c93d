"""in100-resim-c4 with twice the learning rate, 0.06 at batch 256: docs/in100.md. No row stands on it.

Run: resim-bench pretrain in100-resim-c4-lr06
"""

_base_ = "in100-resim-c4.py"
optimizer = dict(lr=0.06)
