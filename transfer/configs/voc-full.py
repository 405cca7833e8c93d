"""Faster R-CNN R50-C4 on VOC 07+12, every layer fine-tuned (24k iterations).

Paper: ReSim (arXiv:2103.12902), the IN-100 ablations (tables of windows and of methods); the protocol is that of MoCo
(facebookresearch/moco, detection/), SyncBN as in ReSim's own copy.
Run: resim-bench transfer voc-full --backbone in100-resim-c4 --data data/VOCdevkit
Expect: AP 57.0, AP50 82.4, AP75 63.6 from MoCo-v2's released 200-epoch ImageNet weights (MoCo, detection/README.md, in
Detectron2; mean of 5 trials, whose standard deviation is .2/.2/.4). About 4 hours on 8 V100.
Shorten: --cfg-options max_iters=60 total_batch=2 precise_bn_iters=5 (learning-rate steps and warm-up shrink along).
Plain MMDetection: tools/train.py transfer/configs/voc-full.py --cfg-options backbone=BACKBONE
"""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py", "_base_/detectron2.py"]

max_iters = 24000
expected_data = dict(name="PASCAL VOC 07+12", train_images=16551, test_images=4952, classes=20)

scales = [(1333, short) for short in range(480, 801, 32)]  # width and height at most, one drawn per image
test_scale = (1333, 800)

# The base is a Caffe ResNet with frozen norms, stem and res2: all of that goes.
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,  # Detectron2 pads a C4 batch to its largest image only
    ),
    backbone=dict(
        style="pytorch",
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        zero_init_residual=False,
        init_cfg=None,
    ),
    rpn_head=dict(type="Detectron2RPNHead"),
    roi_head=dict(
        shared_head=dict(_delete_=True, type="ResLayerExtraNorm", depth=50, stride=2, norm_cfg=norm_cfg, frozen=False),
        bbox_head=dict(type="Detectron2BBoxHead", num_classes=20),
    ),
    # Detectron2 keeps the best anchor of every object, however small its IoU.
    train_cfg=dict(rpn=dict(assigner=dict(type="Detectron2Assigner", min_pos_iou=0.0))),
)

# Pillow reads and scales, as in Detectron2: its bilinear filter smooths when it shrinks, OpenCV's does not.
train_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=scales,
        keep_ratio=True,
        backend="pillow",
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="Resize", scale=test_scale, keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),  # after the resize: objects are in the original image's pixels
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

data_root = "data/VOCdevkit"
train_dataloader = dict(
    dataset=dict(type="VOCFolder", data_root=data_root, split="train", pipeline=train_pipeline),
)
test_dataloader = dict(
    dataset=dict(type="VOCFolder", data_root=data_root, split="test", pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(type="VOCAveragePrecision", printed=True)
val_evaluator = test_evaluator

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    # end=101 gives Detectron2's 100 iterations of warm-up: mmengine divides by end - begin - 1
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=101),
    dict(type="MultiStepLR", by_epoch=False, milestones=[18000, 22000], gamma=0.1),
]
