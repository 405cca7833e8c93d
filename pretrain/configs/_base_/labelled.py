"""Crop and flip alone, for networks that learn classes, or nothing."""

_base_ = "moco_v2.py"
views = dict(scale=(0.08, 1.0), jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)
