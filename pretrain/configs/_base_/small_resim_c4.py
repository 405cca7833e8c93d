"""ReSim-C4 made small: W48-S32 is 12 px every 8 px, the same cells of C4."""

_base_ = "small_moco_v2.py"
model = dict(levels=dict(c4=dict(map_stride=4, window=12, stride=8)))
views = dict(flip="shared")
