"""ReSim-C4 on IN-100, windows of 48 px every 32 px: the paper's choice.

Windows and equation (2) are the paper's; its region head is not published: one 3 x 3 convolution to 128 [ours].
Expect, after voc-full: 55.9 / 81.3 / 62.1; after voc-frozen: 50.0 / 77.2 / 55.0 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-resim-c4
"""

_base_ = "in100-moco-v2.py"
model = dict(
    levels=dict(
        c4=dict(
            map_stride=16,
            window=48,
            stride=32,
            dim=128,
            anchor="query",
            negatives="windows",
            reduction="image",
        )
    )
)
views = dict(flip="shared")
