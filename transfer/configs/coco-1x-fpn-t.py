"""Mask R-CNN R50-FPN on COCO 2017, the FPN pre-trained, too, 1x schedule (ReSim-FPN^T).

Paper: ReSim (arXiv:2103.12902), the COCO table, 1x columns, the rows ReSim-FPN^T. Laterals 3 to 5 and outputs 3 and 4
of the neck start from the pre-trained pyramid; their biases have no place beside the neck's norms.
Run: resim-bench transfer coco-1x-fpn-t --backbone in1k-resim-fpn-200ep-release --data data/coco
Expect: box AP 39.8, AP50 60.2, AP75 43.5 and mask AP 36.0, AP50 57.1, AP75 38.6 from 200 epochs on ImageNet;
40.3, 60.6, 44.2 and 36.4, 57.5, 38.9 from 400.
It differs from coco-1x by the line below alone.
"""

_base_ = "./coco-1x.py"

init_neck = True
