"""Mask R-CNN R50-FPN on COCO 2017 with a box head of four convolutions and SyncBN in both heads, 2x schedule.

Paper: none; PyContrast's R_50_FPN_2x (docs/sources.md).
Run: resim-bench transfer coco-2x-4conv --backbone given-moco-v2 --data data/coco
Expect: box AP 42.5, mask AP 38.2 from MoCo-v2's 800 epochs (InsLoc's model zoo). No row stands on it.
It differs from coco-2x by its heads alone, and from coco-1x-4conv by the schedule alone.
"""

_base_ = "./coco-2x.py"

norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    roi_head=dict(
        bbox_head=dict(num_shared_convs=4, num_shared_fcs=1, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    )
)
