"""Random init.: an untrained trunk. It needs no images, for where norms train their statistics are new at once.

Expect, after voc-full: 33.8 / 60.2 / 33.1 (AP / AP50 / AP75).
Run: resim-bench pretrain random
"""

_base_ = ["_base_/labelled.py", "_base_/in100.py"]
model = dict(_delete_=True, type="Random", backbone=dict(depth=50, strides=(1, 2, 2, 2)))
epochs = 0
calibration_batches = 0
