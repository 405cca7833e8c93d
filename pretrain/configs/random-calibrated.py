"""random, its batch-norm statistics calibrated on the pre-training images: for transfers whose norms stay as they are.

Run: resim-bench pretrain random-calibrated
"""

_base_ = "random.py"
calibration_batches = 8
