"""The monitor's readings of a small trunk, on the first hundred of mini's annotated scenes: seconds on two cores.

Run: resim-bench judge mini-moco-v2
"""

_base_ = "../configs/mini-moco-v2.py"  # the monitor and the views are its
expected_data = dict(trainval_images=400)
