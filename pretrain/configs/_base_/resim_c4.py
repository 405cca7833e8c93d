"""ReSim-C4: MoCo-v2 with a region loss on C4 and one flip for both views.

Windows and equation (2) are the summary's; its region head is not in our sources: one 3 x 3 convolution to 128 [ours].
"""

_base_ = "moco_v2.py"
model = dict(
    levels=dict(
        c4=dict(map_stride=16, window=48, stride=32),
    )
)
views = dict(flip="shared")
