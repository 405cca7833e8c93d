"""ReSim-FPN on ImageNet-1k, 200 epochs, as the summary says it: P4 with windows W48-S32, P3 with W32-S24.

Expect the numbers of in1k-resim-fpn-200ep-release, which the paper's were measured with; no row is compared with this.
Run: resim-bench pretrain in1k-resim-fpn-200ep
"""

_base_ = ["_base_/resim_fpn.py", "_base_/in1k.py"]
