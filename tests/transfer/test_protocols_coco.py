"""Each value of MoCo's COCO protocol (docs/sources.md: moco-issue-39) against what the configs build.

The left column of a row names it as the table does; the expectation is Detectron2's value.
"""

import copy
import json
import math

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope

from resim_bench import experiments
from tests.transfer.conftest import make_coco
from tests.transfer.helpers import (
    SHARED,
    Built,
    check_learning_rate,
    check_row,
    differences,
    kind,
    norms,
    resolved,
    spread_is,
    transform,
)
from transfer import protocols, weights

CLASSES = [f"class {i}" for i in range(80)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return Built("coco-1x", make_coco(tmp_path_factory.mktemp("data") / "coco"), CLASSES)


def convolutions(module):
    return [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]


def is_kaiming_uniform(weight):
    """c2_xavier_fill: uniform in ±sqrt(3 / fan in)."""
    bound = math.sqrt(3 / weight[0].numel())
    return 0.99 * bound < weight.abs().max() <= bound


def is_msra(weight):
    """c2_msra_fill: normal with variance 2 / fan out."""
    return spread_is(weight, math.sqrt(2 / (weight.numel() / weight.shape[1])))


def pyramid(b):
    """Feature maps of a 64 x 96 image, of a copy that normalises in one process."""
    with torch.no_grad():
        return revert_sync_batchnorm(copy.deepcopy(b.model)).extract_feat(torch.randn(2, 3, 64, 96))


def poolers(extractor):
    return [(r.output_size, r.spatial_scale, r.sampling_ratio, r.aligned, r.pool_mode) for r in extractor.roi_layers]


def anchors_of_level(b, level):
    """Side of the square anchor, ratios h/w and centre."""
    anchors = b.rpn.prior_generator.base_anchors[level]
    sides = anchors[:, 2:] - anchors[:, :2]
    areas, ratios = sides.prod(1).sqrt(), sides[:, 1] / sides[:, 0]
    return areas.tolist(), ratios.tolist(), (anchors[:, 2:] + anchors[:, :2]).abs().max().item()


def level_of(b, side):
    box = torch.tensor([[0.0, 0.0, 0.0, side, side]])
    return 2 + b.roi.bbox_roi_extractor.map_roi_levels(box, 4).item()


def proposals(c):
    return (c.nms_pre, c.max_per_img, c.nms.iou_threshold, c.min_bbox_size)


ROWS = {
    "backbone: ResNet-50, all four stages": lambda b: (
        [len(getattr(b.trunk, n)) for n in b.trunk.res_layers] == [3, 4, 6, 3]
        and [f.shape[1] for f in b.trunk(torch.zeros(1, 3, 64, 64))] == [256, 512, 1024, 2048]
    ),
    "backbone: strides": lambda b: tuple(b.cfg.model.backbone.strides) == (1, 2, 2, 2) == b.trunk.strides,
    "FPN norm: SyncBN on lateral and output convs, training": lambda b: (
        kind(*b.model.neck.lateral_convs, *b.model.neck.fpn_convs) == {torch.nn.SyncBatchNorm}
        and len(norms(b.model.neck)) == 8
        and all(m.training for m in norms(b.model.neck))
    ),
    "FPN norm: no bias, no activation": lambda b: (
        all(m.bias is None for m in convolutions(b.model.neck))
        and not any(m.with_activation for m in (*b.model.neck.lateral_convs, *b.model.neck.fpn_convs))
    ),
    "RPN/box/mask heads norm: none": lambda b: not norms(b.rpn) and not norms(b.roi),
    "box head: 2 fc of 1024": lambda b: (
        [(fc.in_features, fc.out_features) for fc in b.box.shared_fcs] == [(256 * 7 * 7, 1024), (1024, 1024)]
        and not len(b.box.shared_convs)
    ),
    "box head: fc start as c2_xavier": lambda b: (
        all(spread_is(fc.weight, (1 / fc.in_features) ** 0.5) and not fc.bias.any() for fc in b.box.shared_fcs)
        and all(fc.weight.abs().max() <= (3 / fc.in_features) ** 0.5 for fc in b.box.shared_fcs)
    ),
    "box head: 81 scores, 320 deltas": lambda b: (b.box.fc_cls.out_features, b.box.fc_reg.out_features) == (81, 320),
    "mask head: 4 convs, deconv, 80 masks": lambda b: (
        [tuple(c.conv.weight.shape) for c in b.roi.mask_head.convs] == [(256, 256, 3, 3)] * 4
        and (b.roi.mask_head.upsample.kernel_size, b.roi.mask_head.upsample.stride) == ((2, 2), (2, 2))
        and b.roi.mask_head.conv_logits.out_channels == 80
    ),
    "FPN: 256 channels, p2 to p6": lambda b: (
        [tuple(f.shape[1:]) for f in pyramid(b)] == [(256, 16, 24), (256, 8, 12), (256, 4, 6), (256, 2, 3), (256, 1, 2)]
    ),
    "FPN p6: max-pool k1 s2 of p5": lambda b: (lambda p: torch.equal(p[4], p[3][:, :, ::2, ::2]))(pyramid(b)),
    "FPN init": lambda b: all(is_kaiming_uniform(m.weight) for m in convolutions(b.model.neck)),
    "anchors": lambda b: (
        [anchors_of_level(b, k) for k in range(5)]
        == [(pytest.approx([32 * 2**k] * 3), pytest.approx([0.5, 1, 2]), 0) for k in range(5)]
    ),
    "anchors: strides": lambda b: b.rpn.prior_generator.strides == [(s, s) for s in (4, 8, 16, 32, 64)],
    "RPN head": lambda b: (
        tuple(b.rpn.rpn_conv.weight.shape) == (256, 256, 3, 3)
        and b.rpn.rpn_cls.kernel_size == b.rpn.rpn_reg.kernel_size == (1, 1)
    ),
    "RPN topk train": lambda b: proposals(b.model.train_cfg.rpn_proposal) == (2000, 1000, 0.7, 0),
    "RPN topk test": lambda b: proposals(b.rpn.test_cfg) == (1000, 1000, 0.7, 0),
    "RoI level map": lambda b: [level_of(b, s) for s in (111, 113, 223, 225, 447, 449)] == [2, 3, 3, 4, 4, 5],
    "box pool": lambda b: (
        poolers(b.roi.bbox_roi_extractor) == [((7, 7), 1 / s, 0, True, "avg") for s in (4, 8, 16, 32)]
    ),
    "mask pool": lambda b: (
        poolers(b.roi.mask_roi_extractor) == [((14, 14), 1 / s, 0, True, "avg") for s in (4, 8, 16, 32)]
    ),
    "mask head init: MSRA": lambda b: (
        all(is_msra(c.conv.weight) for c in b.roi.mask_head.convs) and is_msra(b.roi.mask_head.upsample.weight)
    ),
    "mask head init: predictor N(0, .001)": lambda b: (
        spread_is(b.roi.mask_head.conv_logits.weight, 0.001) and not b.roi.mask_head.conv_logits.bias.any()
    ),
    "mask target: outlines rasterised at 28 x 28": lambda b: (
        (transform(b.train, "LoadAnnotations").with_mask, transform(b.train, "LoadAnnotations").poly2mask)
        == (True, False)
        and b.model.train_cfg.rcnn.mask_size == 28
    ),
    "mask loss": lambda b: b.roi.mask_head.loss_mask.use_mask and b.roi.mask_head.loss_mask.loss_weight == 1,
    "crowd: does not train, nor an image of nothing else": lambda b: (
        [b.train.get_data_info(k)["img_id"] for k in range(len(b.train))] == list(range(1, 9))
        and not any(i["ignore_flag"] for k in range(8) for i in b.train.get_data_info(k)["instances"])
    ),
    "test: all images": lambda b: [b.test.get_data_info(k)["img_id"] for k in range(len(b.test))] == list(range(1, 7)),
    "train resize": lambda b: (
        transform(b.train, "RandomChoiceResize").scales == [(1333, s) for s in (640, 672, 704, 736, 768, 800)]
        and transform(b.train, "RandomChoiceResize").resize.keep_ratio
        and transform(b.train, "RandomChoiceResize").resize.backend == "pillow"
    ),
    "schedule 1x": lambda b: (
        (b.cfg.train_cfg.type, b.cfg.train_cfg.max_iters) == ("IterBasedTrainLoop", 90000)
        and (b.cfg.param_scheduler[1].milestones, b.cfg.param_scheduler[1].gamma) == ([60000, 80000], 0.1)
    ),
    "padding": lambda b: b.model.data_preprocessor.pad_size_divisor == 32 and b.model.data_preprocessor.pad_mask,
    "eval: mask threshold .5": lambda b: b.roi.test_cfg.mask_thr_binary == 0.5,
    "eval: pycocotools": lambda b: b.cfg.test_evaluator.type == "COCOAveragePrecision",
}


@pytest.mark.parametrize("row", SHARED | ROWS)
def test_row(built, row):
    check_row(row, (SHARED | ROWS)[row], built)


def test_the_warm_up_is_detectron2s_at_every_iteration(built):
    check_learning_rate(built.cfg, warm_up=1000, steps=(60000, 80000), until=1100)


SCHEDULE_2X = {
    "max_iters": [90000, 180000],
    "schedule.MultiStepLR.milestones": [[60000, 80000], [120000, 160000]],
}
MINI_SCHEDULE_2X = {"max_iters": [720, 1440], "schedule.MultiStepLR.milestones": [[480, 640], [960, 1280]]}
FROZEN = {"model.backbone.frozen_stages": [-1, 4]}
PHOTOGRAPHS = {
    "model.rpn_head.anchor_generator.base_sizes": [[4, 8, 16, 32, 64], [5, 10, 20, 40, 80]],
    "model.roi_head.bbox_roi_extractor.finest_scale": [7, 9],
    "model.roi_head.mask_roi_extractor.finest_scale": [7, 9],
    "train.RandomChoiceResize.scales": [[(256, s) for s in (84, 96, 108)], [(256, s) for s in (112, 128, 144)]],
    "test.Resize.scale": [[256, 96], [256, 128]],
    "metric.folder": [None, "COCOPersons"],
    "max_iters": [720, 2160],
    "schedule.MultiStepLR.milestones": [[480, 640], [1440, 1920]],
}
FPN_T = {"hooks.BackboneHook.neck": [None, True]}


@pytest.mark.parametrize(
    ("base_id", "transfer_id", "difference"),
    [("coco-1x", "coco-2x", SCHEDULE_2X), ("mini-coco-1x", "mini-coco-2x", MINI_SCHEDULE_2X)]
    + [("mini-coco-1x", "photos-coco-person-full", PHOTOGRAPHS)]
    + [("photos-coco-person-full", "photos-coco-person-frozen", FROZEN)]
    + [
        ("mini-coco-1x", f"mini-coco-1x-{variant}", difference)
        for variant, difference in (("frozen", FROZEN), ("fpn-t", FPN_T))
    ]
    + [
        (f"coco-{schedule}", f"coco-{schedule}-{variant}", difference)
        for schedule in ("1x", "2x")
        for variant, difference in (
            ("frozen", FROZEN),
            ("fpn-t", FPN_T),
            ("release", {"model.backbone.frozen_stages": [-1, 1], "hooks.PreciseBNHook.num_iters": [200, 0]}),
        )
    ],
)
def test_each_protocol_differs_from_its_base_by_what_it_is_named_after_alone(base_id, transfer_id, difference):
    assert differences(base_id, transfer_id) == difference


@pytest.mark.parametrize("transfer_id", ["photos-coco-person-full", "photos-coco-person-frozen"])
def test_photographs_train_and_are_tested_on_persons(transfer_id, tmp_path):
    root = make_coco(tmp_path / "coco")
    for file in (root / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        for entry in content["categories"]:
            entry["name"] = "person" if entry["name"] == "blue" else entry["name"]
        file.write_text(json.dumps(content))
    cfg = resolved(transfer_id, data=str(root), classes=["person"])
    with DefaultScope.overwrite_default_scope("mmdet"):
        train, test = (DATASETS.build(cfg[f"{split}_dataloader"].dataset) for split in ("train", "test"))
    assert train.metainfo["classes"] == test.metainfo["classes"] == ("person",)
    assert cfg.test_evaluator.folder == cfg.test_dataloader.dataset.type == type(test).__name__
    by_category = {f"{split}_dataloader.dataset.type": "COCOFolder" for split in ("train", "test")}
    assert resolved(transfer_id, by_category).test_evaluator.folder == "COCOFolder"
    of_persons = dict.fromkeys(by_category, "COCOPersons")
    other = resolved("coco-1x", of_persons)
    assert other.test_evaluator.folder == "COCOPersons"
    changed = protocols.deviations(protocols.summary(resolved("coco-1x")), protocols.summary(other))
    assert changed == {"metric.folder": [None, "COCOPersons"]}
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = test.metainfo
    found = [
        {
            "id": test.get_data_info(i)["img_id"],
            "found": {"label": [], "score": [], "box": np.zeros((0, 4)), "mask": []},
        }
        for i in range(len(test))
    ]
    assert metric.gather(found).classes == ("person",), "its objects are of the same class"


@pytest.mark.parametrize("transfer_id", [i for i in experiments.transfer_ids() if "coco" in i])
def test_what_resim_bench_sets_stands_in_the_config_for_plain_mmdetection_too(transfer_id):
    cfg = protocols.load(transfer_id)
    assert cfg.train_cfg.max_iters == cfg.train_cfg.val_interval == cfg.max_iters
    assert cfg.train_dataloader.batch_size == cfg.train_dataloader.sampler.batch_size == cfg.total_batch
    assert [h.type for h in cfg.custom_hooks] == ["BackboneHook", "PreciseBNHook", "Float32Hook"]
    assert cfg.custom_hooks[1].num_iters == cfg.precise_bn_iters


@pytest.mark.parametrize(
    ("transfer_id", "frozen", "free"),
    [
        ("coco-1x-frozen", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."), ()),
        ("mini-coco-1x-frozen", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."), ()),
        ("photos-coco-person-frozen", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."), ()),
        ("coco-1x-release", ("conv1.", "bn1.", "layer1."), ("layer2.", "layer3.", "layer4.")),
    ],
)
def test_what_is_frozen(transfer_id, frozen, free):
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = revert_sync_batchnorm(MODELS.build(resolved(transfer_id, classes=CLASSES).model))
    keys = weights.frozen_keys(model)
    assert keys == sorted(key for key in weights.trunk_places(model) if key.startswith(frozen))
    for module in (model.neck, model.rpn_head, model.roi_head):
        assert all(p.requires_grad for p in module.parameters()) and all(m.training for m in norms(module))
    assert all(p.requires_grad for n, p in model.backbone.named_parameters() if n.startswith(free))


def test_the_command_line_reaches_both_heads_and_the_metric():
    cfg = resolved("coco-1x", data="folder", classes=["a", "b"])
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
    assert cfg.test_evaluator.data_root == cfg.test_dataloader.dataset.data_root == "folder"
    assert "folder" not in str(protocols.summary(cfg))
    boxes = {"model.roi_head.mask_head": None, "test_evaluator": {"kinds": ["box"]}}
    boxes_alone = resolved("coco-1x", boxes, data="folder", classes=["a", "b"])
    assert boxes_alone.model.roi_head.bbox_head.num_classes == 2 and not boxes_alone.model.roi_head.mask_head
    assert boxes_alone.test_evaluator.data_root == "folder"


def test_random_weights_are_frozen_in_the_frozen_tables_alone():
    for pair in experiments.experiments():
        if pair.pretrain_id == "random" and "frozen" not in pair.transfer_id:
            model = protocols.load(pair.transfer_id).model
            assert model.backbone.frozen_stages == -1, pair
            assert not model.roi_head.get("shared_head", {}).get("frozen"), pair
