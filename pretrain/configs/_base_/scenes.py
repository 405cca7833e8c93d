"""Generated scenes."""

dataset = dict(name="scenes", root="data/mini/imagefolder", images=4000, classes=1)
epochs = 8
