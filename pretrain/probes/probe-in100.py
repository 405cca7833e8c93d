"""Linear classification on IN-100.

Expect: not in our sources for these recipes; MoCo reached 81.0 top-1 elsewhere (LooC's Table 1, second-hand).
Run: resim-bench probe in100-moco-v2
"""

_base_ = "_base_.py"
dataset = dict(name="imagenet100", root="data/imagenet", images=126689, classes=100)
test_images = 5000
published = {"in100-moco-v2": dict(top1="81.0", source="looc")}
