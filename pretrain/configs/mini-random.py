"""Random init. made small: an untrained ResNet-18, its batch-norm statistics calibrated on generated scenes.

Run: resim-bench mini
"""

_base_ = "_base_/mini.py"
model = dict(_delete_=True, type="Random", backbone=dict(depth=18, strides=(1, 1, 1, 2), width=16))
views = dict(scale=(0.08, 1.0), jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)
epochs = 0
calibration_batches = 8
