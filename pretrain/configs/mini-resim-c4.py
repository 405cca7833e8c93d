"""ReSim-C4 made small: windows of 24 px every 16 px, which is 3 cells of C4 every 2, as in the paper.

Run: resim-bench mini
"""

_base_ = "mini-moco-v2.py"
model = dict(
    levels=dict(
        c4=dict(
            map_stride=8,
            window=24,
            stride=16,
            dim=128,
            anchor="query",
            negatives="windows",
            reduction="image",
        )
    )
)
views = dict(flip="shared")
