"""Each line of the certificate holds, and what is another protocol turns one red."""

from pathlib import Path

import pytest

from tests.conformance import certificate, detection, pretraining

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


@pytest.mark.parametrize("name", certificate.QUANTITIES)
def test_equal_to_the_original(name):
    quantity = certificate.QUANTITIES[name]
    assert quantity.difference() <= quantity.tolerance


TRAIN, TEST = "model.train_cfg", "model.test_cfg"
OTHER_DETECTION = {
    "model.rpn_head.anchor_generator.ratios": ([0.5, 1.0, 2.5], "cell_anchors"),
    "model.rpn_head.anchor_generator.center_offset": (0.5, "grid_anchors"),
    f"{TRAIN}.rpn.assigner.pos_iou_thr": (0.6, "rpn_matching"),
    f"{TRAIN}.rpn.assigner.match_low_quality": (False, "rpn_matching"),
    f"{TRAIN}.rpn.assigner.type": ("MaxIoUAssigner", "rpn_targets"),
    f"{TRAIN}.rpn.sampler.num": (128, "rpn_normaliser"),
    f"{TRAIN}.rcnn.assigner.pos_iou_thr": (0.6, "roi_matching"),
    f"{TRAIN}.rcnn.mask_size": (14, "mask_targets"),
    "model.rpn_head.type": ("RPNHead", "rpn_training_coco"),
    "model.rpn_head.loss_cls.loss_weight": (2.0, "rpn_training_voc"),
    "model.rpn_head.loss_bbox": (dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0), "rpn_training_voc"),
    "model.rpn_head.bbox_coder.target_stds": ([0.1, 0.1, 0.2, 0.2], "box_deltas"),
    "model.roi_head.bbox_head.bbox_coder.target_stds": ([1.0, 1.0, 1.0, 1.0], "decoded_boxes"),
    "model.roi_head.bbox_head.loss_bbox.loss_weight": (0.5, "box_losses"),
    "model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": (2, "roi_align_c4"),
    "model.roi_head.bbox_roi_extractor.finest_scale": (28, "roi_align_fpn"),
    f"{TEST}.rpn.nms.iou_threshold": (0.6, "proposals_voc"),
    f"{TEST}.rpn.max_per_img": (300, "proposals_coco"),
    f"{TEST}.rcnn.nms.iou_threshold": (0.4, "detections"),
    f"{TEST}.rcnn.score_thr": (0.9, "detections"),
    f"{TEST}.rcnn.mask_thr_binary": (0.4, "mask_pasting"),
    "param_scheduler.0.end": (501, "learning_rate"),
    "param_scheduler.1.gamma": (0.2, "learning_rate"),
    "optim_wrapper.optimizer.lr": (0.01, "optimiser"),
    "optim_wrapper.optimizer.momentum": (0.8, "optimiser"),
    "optim_wrapper.paramwise_cfg.norm_decay_mult": (1.0, "optimiser"),
    "test_scale": ((1000, 600), "resized_shapes"),
    "model.backbone.frozen_stages": (1, "trainable_tensors"),
    "model.backbone.norm_cfg": (dict(type="SyncBN", requires_grad=True, momentum=0.01), "norms"),
    "model.backbone.norm_eval": (True, "norms"),
}
OTHER_PRETRAINING = {
    "momentum": (0.999, "moco_state"),
    "temperature": (0.07, "moco_losses"),
    "bn_group": (4, "moco_losses"),
    "p4": ({"border": "closed"}, "release_valid"),
    "p3": ({"window": 40}, "release_boxes"),
}


def _turns_red(name):
    quantity = certificate.QUANTITIES[name]
    return quantity.difference() > quantity.tolerance


@pytest.mark.parametrize("setting", OTHER_DETECTION)
def test_another_protocol_of_detection_is_seen(setting, monkeypatch):
    value, name = OTHER_DETECTION[setting]
    monkeypatch.setitem(detection.CHANGES, setting, value)
    assert _turns_red(name)


@pytest.mark.parametrize("setting", OTHER_PRETRAINING)
def test_another_method_is_seen(setting, monkeypatch):
    value, name = OTHER_PRETRAINING[setting]
    monkeypatch.setitem(pretraining.CHANGES, setting, value)
    assert _turns_red(name)


def test_the_document_shows_the_lines_of_today():
    """All but the differences, whose last digits are the machine's."""

    shown = DOCUMENT.read_text().splitlines()
    for quantity in certificate.QUANTITIES.values():
        line = certificate.line(quantity, 0)
        start, end = line[: sum(certificate.WIDTHS[:3])], line[sum(certificate.WIDTHS[:4]) :]
        assert any(row.startswith(start) and row.endswith(end) for row in shown), quantity.name
