"""ReSim-C4 made small: W48-S32 is 12 px every 8 px, the same cells of C4.

Run: resim-bench mini
"""

_base_ = "mini-moco-v2.py"
model = dict(
    levels=dict(
        c4=dict(
            map_stride=4,
            window=12,
            stride=8,
            dim=128,
            anchor="query",
            negatives="windows",
            reduction="image",
        )
    )
)
views = dict(flip="shared")
