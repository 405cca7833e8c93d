"""The monitor's readings of a ResNet-50, or any trunk, on the first hundred images of VOC2007's trainval.

Run: resim-bench judge given-moco-v2
"""

_base_ = "../configs/in1k-moco-v2-200ep.py"  # the monitor and the views are its
expected_data = dict(trainval_images=5011)
