"""DenseCL made small."""

_base_ = "small_moco_v2.py"
model = dict(type="DenseCL", instance_weight=0.5, dense_weight=0.5)
