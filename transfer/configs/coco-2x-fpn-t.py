"""Mask R-CNN R50-FPN on COCO 2017, the FPN pre-trained, too, 2x schedule (ReSim-FPN^T).

Paper: ReSim (arXiv:2103.12902), the COCO table, 2x columns, the rows ReSim-FPN^T.
Run: resim-bench transfer coco-2x-fpn-t --backbone in1k-resim-fpn-200ep-release --data data/coco
Expect: box AP 41.4, AP50 61.9, AP75 45.4 and mask AP 37.5, AP50 59.1, AP75 40.3 from 200 epochs on ImageNet;
41.9, 62.4, 45.9 and 37.9, 59.4, 40.6 from 400.
It differs from coco-2x by the line below alone.
"""

_base_ = "./coco-2x.py"

init_neck = True
