"""IN-100: 100 classes of ImageNet-1k, the list of CMC."""

dataset = dict(name="imagenet100", root="data/imagenet", images=126689, classes=100)
# How long IN-100 was trained is not in our sources: 500 is a hypothesis from a related reproduction [ours].
epochs = 500
