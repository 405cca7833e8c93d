"""Random init. made small: an untrained ResNet-18, its batch-norm statistics calibrated on generated scenes.

Run: resim-bench mini
"""

_base_ = ["_base_/small_random.py", "_base_/scenes.py"]
epochs = 0
