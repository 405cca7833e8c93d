"""in100-resim-c4 with a queue of 16,384 keys, an eighth of the images: docs/in100.md. No row stands on it.

Run: resim-bench pretrain in100-resim-c4-k16384
"""

_base_ = "in100-resim-c4.py"
model = dict(queue=16384)
