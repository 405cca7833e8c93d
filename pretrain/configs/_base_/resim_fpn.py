"""ReSim-FPN: MoCo-v2 with region losses on P4 and P3 of a feature pyramid, and one flip for both views.

The levels, equation (2) and its negatives are the summary's; windows and strides, which it does not have, are the
release's. The regions are compared in the pyramid's own 256 channels; see in1k-resim-fpn-200ep-release.
"""

_base_ = "moco_v2.py"
model = dict(
    levels=dict(
        p4=dict(map_stride=16, window=48, stride=32),
        p3=dict(map_stride=8, window=32, stride=24),
    )
)
views = dict(flip="shared")
