"""Supervised classification on IN-100; the recipe is not in our sources, this one is ours.

Values [ours]: 100 epochs, batch 256, learning rate 0.1, a tenth after 30, 60 and 90; crop and flip alone.
Expect, after voc-full: 44.0 / 72.8 / 45.5 (AP / AP50 / AP75).
Run: resim-bench pretrain in100-supervised
"""

_base_ = ["_base_/labelled.py", "_base_/in100.py"]
model = dict(
    _delete_=True, type="Supervised", backbone=dict(depth=50, strides=(1, 2, 2, 2)), num_classes=100, bn_group=32
)
epochs = 100
optimizer = dict(lr=0.1)
milestones = (30, 60, 90)
