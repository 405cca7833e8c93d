"""ReSim-FPN on ImageNet-1k, 200 epochs, by equation (2); windows and strides are the release's.

Expect the numbers of in1k-resim-fpn-200ep-release, which the paper's were measured with; no row is compared with this.
Run: resim-bench pretrain in1k-resim-fpn-200ep
"""

_base_ = ["_base_/resim_fpn.py", "_base_/in1k.py"]
