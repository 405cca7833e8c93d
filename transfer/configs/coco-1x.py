"""Mask R-CNN R50-FPN on COCO 2017, every layer fine-tuned, 1x schedule (90k iterations).

Paper: ReSim (arXiv:2103.12902), the COCO table, 1x columns; the protocol is that of MoCo (facebookresearch/moco,
detection/ and issue 39): SyncBN in backbone and FPN alone, nothing frozen, precise batch norm. ReSim's released
configuration leaves out the last two: `coco-1x-release`.
Run: resim-bench transfer coco-1x --backbone in1k-resim-fpn-200ep-release --data data/coco
Expect: box AP 38.9, AP50 59.2, AP75 42.4 and mask AP 35.4, AP50 56.2, AP75 37.8 from MoCo-v2's 200 epochs on ImageNet;
39.5, 59.9, 43.3 and 35.8, 57.0, 38.4 from ReSim-FPN's; 31.0, 49.5, 33.2 and 28.5, 46.8, 30.4 from no pre-training.
About 9 hours on 8 V100.
Shorten: --cfg-options max_iters=60 total_batch=2 precise_bn_iters=5 (learning-rate steps and warm-up shrink along), and
scales="[(333,160),(333,192)]" test_scale="(333,192)".
Plain MMDetection: tools/train.py transfer/configs/coco-1x.py --cfg-options backbone=BACKBONE
"""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "_base_/detectron2.py"]

max_iters = 90000
expected_data = dict(name="COCO 2017", train_images=117266, test_images=5000, classes=80)

scales = [(1333, short) for short in range(640, 801, 32)]  # width and height at most, one drawn per image
test_scale = (1333, 800)

# The base freezes norms, stem and res2, and its FPN has no norm.
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    backbone=dict(
        strides=(1, 2, 2, 2),
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        zero_init_residual=False,
        init_cfg=None,
    ),
    neck=dict(norm_cfg=norm_cfg, init_cfg=dict(type="Caffe2Xavier", layer="Conv2d")),
    rpn_head=dict(type="Detectron2RPNHead"),
    roi_head=dict(
        bbox_head=dict(
            type="Detectron2ConvFCBBoxHead",
            num_shared_convs=0,
            num_shared_fcs=2,
            init_cfg=[
                dict(type="Normal", std=0.01, override=dict(name="fc_cls")),
                dict(type="Normal", std=0.001, override=dict(name="fc_reg")),
                dict(type="Caffe2Xavier", override=dict(name="shared_fcs")),
            ],
        ),
        mask_head=dict(type="Detectron2MaskHead"),
    ),
    train_cfg=dict(
        # Detectron2 keeps the best anchor of every object, however small its IoU, and no such proposal.
        rpn=dict(assigner=dict(type="Detectron2Assigner", min_pos_iou=0.0)),
        rcnn=dict(assigner=dict(match_low_quality=False)),
    ),
)

# Pillow reads and scales, as in Detectron2: its bilinear filter smooths when it shrinks, OpenCV's does not.
train_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False),
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
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

data_root = "data/coco"
train_dataloader = dict(
    dataset=dict(type="COCOFolder", data_root=data_root, split="train", pipeline=train_pipeline),
)
test_dataloader = dict(
    dataset=dict(type="COCOFolder", data_root=data_root, split="test", pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(type="COCOAveragePrecision", data_root=data_root)
val_evaluator = dict(evaluator="faster-coco-eval", **test_evaluator)  # where plain MMDetection validates

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    # end=1001 gives Detectron2's 1000 iterations of warm-up: mmengine divides by end - begin - 1
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type="MultiStepLR", by_epoch=False, milestones=[60000, 80000], gamma=0.1),
]
