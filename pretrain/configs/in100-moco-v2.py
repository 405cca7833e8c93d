"""MoCo-v2 on IN-100: the baseline of the paper's ablations.

Expect, after voc-full: 54.4 / 80.1 / 60.0; after voc-frozen: 47.1 / 75.4 / 50.6 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-moco-v2
"""

_base_ = ["_base_/moco_v2.py", "_base_/in100.py"]
