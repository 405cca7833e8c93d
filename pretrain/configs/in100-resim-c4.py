"""ReSim-C4 on IN-100, windows of 48 px every 32 px: the paper's choice.

Expect, after voc-full: 55.9 / 81.3 / 62.1; after voc-frozen: 50.0 / 77.2 / 55.0 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-resim-c4
"""

_base_ = ["_base_/resim_c4.py", "_base_/in100.py"]
