"""photos-cards-full on a small part of COCO, boxes alone, half as long.

Paper: none; the study photos-coco asks whether mini's finding carries over to photographs.
Run: resim-bench transfer photos-coco-full --backbone photos-resim-c4 --data data/coco_small
Expect: what `resim-bench tables photos-coco` shows.
208 images to train on and 80 to test, all 80 categories: too few to learn those. A pilot of 400 iterations reached 0.0
AP, so the time is better spent elsewhere.
"""

_base_ = "./photos-cards-full.py"

max_iters = 200
expected_data = dict(name="a part of COCO 2017", train_images=208, test_images=80, classes=80)

model = dict(roi_head=dict(bbox_head=dict(num_classes=80)))

data_root = "data/coco_small"
train_dataloader = dict(dataset=dict(type="COCOFolder", data_root=data_root))
test_dataloader = dict(dataset=dict(type="COCOFolder", data_root=data_root))
val_dataloader = test_dataloader
test_evaluator = dict(_delete_=True, type="COCOAveragePrecision", data_root=data_root, kinds=["box"])
val_evaluator = test_evaluator

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=40),
    dict(type="MultiStepLR", by_epoch=False, milestones=[150, 184], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
