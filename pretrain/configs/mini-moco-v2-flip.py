"""Control: MoCo-v2 with ReSim's one flip for both views.

Run: resim-bench study mini-controls
"""

_base_ = "mini-moco-v2.py"
views = dict(flip="shared")
