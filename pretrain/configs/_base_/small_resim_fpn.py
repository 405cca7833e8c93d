"""ReSim-FPN made small: the paper's windows in cells, 3 every 2 on P4 and 4 every 3 on P3, both of stride 4 here."""

_base_ = "small_moco_v2.py"
model = dict(
    levels=dict(
        p4=dict(map_stride=4, window=12, stride=8, dim=64),
        p3=dict(map_stride=4, window=16, stride=12, dim=64),
    )
)
views = dict(flip="shared")
