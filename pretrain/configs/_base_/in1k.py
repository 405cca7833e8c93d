"""ImageNet-1k: ILSVRC2012's training images."""

dataset = dict(name="imagenet1k", root="data/imagenet", images=1281167, classes=1000)
epochs = 200
