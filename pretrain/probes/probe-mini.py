"""Linear classification of the objects of mini's scenes, cut out by their boxes: six classes, a minute on two cores.

Run: resim-bench probe mini-moco-v2
"""

_base_ = "_small_.py"
dataset = dict(name="objects", root="data/mini-objects", images=1984, classes=6)
test_images = 975
batch = 64
workers = 0
