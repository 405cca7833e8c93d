"""IN-100: 100 classes of ImageNet-1k, the list of CMC."""

_base_ = "moco_v2.py"
dataset = dict(name="imagenet100", images=126689, classes=100)
# How long the paper trained on IN-100 is not published: 500 is a hypothesis from a related reproduction [ours].
epochs = 500
