"""An untrained network made small, its batch-norm statistics calibrated on crops of the images."""

_base_ = "small_moco_v2.py"
model = dict(_delete_=True, type="Random", backbone=dict(depth=18, strides=(1, 1, 1, 2), width=16))
views = dict(scale=(0.08, 1.0), jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)
calibration_batches = 8
