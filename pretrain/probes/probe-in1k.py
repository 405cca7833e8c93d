"""Linear classification on ImageNet-1k.

Expect: 67.5 ± 0.1 top-1 from MoCo-v2's 200 epochs (MoCo's README).
Run: resim-bench probe in1k-moco-v2-200ep
"""

_base_ = "_base_.py"
dataset = dict(name="imagenet1k", root="data/imagenet", images=1281167, classes=1000)
test_images = 50000
published = {
    "in1k-moco-v2-200ep": dict(top1="67.5 ± 0.1", source="moco"),
    "given-moco-v2": dict(top1="67.5 ± 0.1", source="moco"),
}
