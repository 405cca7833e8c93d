"""Mask R-CNN R50-FPN on COCO 2017 with a box head of four convolutions and SyncBN in both heads, 1x schedule.

Paper: none; PyContrast's R_50_FPN_1x (docs/sources.md), the protocol of InfoMin and of most methods since.
Run: resim-bench transfer coco-1x-4conv --backbone given-moco-v2 --data data/coco
Expect: box AP 39.8, mask AP 36.1 from MoCo-v2's 200 epochs, 38.9 and 35.4 under coco-1x. No row stands on it.
It differs from coco-1x by its heads alone.
"""

_base_ = "./coco-1x.py"

norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    roi_head=dict(
        bbox_head=dict(num_shared_convs=4, num_shared_fcs=1, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    )
)
