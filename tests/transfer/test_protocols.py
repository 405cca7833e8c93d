"""Each value of MoCo's VOC protocol (docs/sources.md: moco, detectron2) against what the config builds.

The left column of a row names it as the table does; the expectation is Detectron2's value.
"""

import ast
import copy
import math

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from resim_bench import experiments
from resim_bench.errors import UserError
from tests.transfer.conftest import make_devkit
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
    steps,
    transform,
)
from transfer import protocols, weights


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    data = make_devkit(tmp_path_factory.mktemp("data") / "VOCdevkit")
    built = Built("voc-full", data)
    built.res5 = built.roi.shared_head
    return built


def unsynced_res5(b):
    """A copy that normalises in one process; batch statistics, so that its output is centred."""
    return revert_sync_batchnorm(copy.deepcopy(b.res5))


def detectron2_anchors():
    boxes = set()
    for size in (32, 64, 128, 256, 512):
        for ratio in (0.5, 1.0, 2.0):
            w = math.sqrt(size**2 / ratio)
            boxes.add(tuple(round(x, 2) for x in (-w / 2, -ratio * w / 2, w / 2, ratio * w / 2)))
    return boxes


ROWS = {
    "backbone: ResNet-50 to res4": lambda b: [len(getattr(b.trunk, n)) for n in b.trunk.res_layers] == [3, 4, 6],
    "backbone: stride 16, 1024 channels": lambda b: (
        [tuple(f.shape) for f in b.trunk(torch.zeros(1, 3, 64, 96))] == [(1, 1024, 4, 6)]
    ),
    "RoI res5: three blocks, stride 2, 1, 1": lambda b: (
        [k.conv2.stride for k in b.res5.layer4] == [(2, 2), (1, 1), (1, 1)] and b.res5.layer4[0].conv1.stride == (1, 1)
    ),
    "RoI res5: SyncBN, training": lambda b: (
        kind(b.res5) == {torch.nn.SyncBatchNorm} and all(m.training for m in norms(b.res5))
    ),
    "extra norm: of 2048 channels, gamma 1, beta 0": lambda b: (
        b.res5.norm.num_features == 2048 and bool((b.res5.norm.weight == 1).all() and (b.res5.norm.bias == 0).all())
    ),
    "extra norm: no ReLU after it": lambda b: bool((unsynced_res5(b)(torch.randn(2, 1024, 14, 14)) < 0).any()),
    "box head: mean over 7x7, no fc": lambda b: (
        (b.box.with_avg_pool, b.box.avg_pool.kernel_size, b.box.in_channels) == (True, (7, 7), 2048)
        and type(b.box).__mro__[1].__name__ == "BBoxHead"
    ),
    "box head: 21 scores, 80 deltas": lambda b: (b.box.fc_cls.out_features, b.box.fc_reg.out_features) == (21, 80),
    "RoI pooling": lambda b: (
        [
            (r.output_size, r.spatial_scale, r.sampling_ratio, r.aligned, r.pool_mode)
            for r in b.roi.bbox_roi_extractor.roi_layers
        ]
        == [((14, 14), 1 / 16, 0, True, "avg")]
    ),
    "RPN head": lambda b: (
        tuple(b.rpn.rpn_conv.weight.shape) == (1024, 1024, 3, 3)
        and spread_is(b.rpn.rpn_conv.weight, 0.01)
        and b.rpn.rpn_cls.kernel_size == b.rpn.rpn_reg.kernel_size == (1, 1)
    ),
    "anchors: sizes and ratios": lambda b: (
        {tuple(round(x, 2) for x in a) for a in b.rpn.prior_generator.base_anchors[0].tolist()} == detectron2_anchors()
    ),
    "anchors: stride 16": lambda b: b.rpn.prior_generator.strides == [(16, 16)],
    "RPN proposals train": lambda b: (
        lambda c: (c.nms_pre, c.max_per_img, c.nms.iou_threshold, c.min_bbox_size) == (12000, 2000, 0.7, 0)
    )(b.model.train_cfg.rpn_proposal),
    "RPN proposals test": lambda b: (
        lambda c: (c.nms_pre, c.max_per_img, c.nms.iou_threshold, c.min_bbox_size) == (6000, 1000, 0.7, 0)
    )(b.rpn.test_cfg),
    "padding": lambda b: b.model.data_preprocessor.pad_size_divisor == 1,
    "train resize": lambda b: (
        (
            transform(b.train, "RandomChoiceResize").scales
            == [(1333, s) for s in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]
        )
        and transform(b.train, "RandomChoiceResize").resize.keep_ratio
        and transform(b.train, "RandomChoiceResize").resize.backend == "pillow"
    ),
    "test boxes in the original image": lambda b: (
        steps(b.test) == ["read_pixels", "Resize", "LoadAnnotations", "PackDetInputs"]
    ),
    "data: both years train, difficult objects too": lambda b: (
        len(b.train) == 10
        and not any(i["ignore_flag"] for k in range(10) for i in b.train.get_data_info(k)["instances"])
    ),
    "schedule: iterations": lambda b: (
        (b.cfg.train_cfg.type, b.cfg.train_cfg.max_iters) == ("IterBasedTrainLoop", 24000)
    ),
}


@pytest.mark.parametrize("row", SHARED | ROWS)
def test_row(built, row):
    check_row(row, (SHARED | ROWS)[row], built)


def test_the_learning_rate_is_detectron2s_at_every_iteration(built):
    check_learning_rate(built.cfg, warm_up=100, steps=(18000, 22000), until=24000)


@pytest.mark.parametrize(
    ("frozen_id", "free_id", "difference"),
    [
        ("voc-frozen", "voc-full", {"model.backbone.frozen_stages": [-1, 3]}),
        ("voc-frozen-res5", "voc-frozen", {"model.roi_head.shared_head.frozen": [False, True]}),
        ("mini-voc-frozen", "mini-voc-full", {"model.backbone.frozen_stages": [-1, 3]}),
        ("photos-cards-frozen", "photos-cards-full", {"model.backbone.frozen_stages": [-1, 3]}),
    ],
)
def test_the_frozen_protocols_differ_by_the_freeze_alone(frozen_id, free_id, difference):
    free, frozen = (resolved(i).to_dict() for i in (free_id, frozen_id))
    assert differences(free_id, frozen_id) == difference
    for key in difference:
        for cfg in (free, frozen):
            *path, last = key.split(".")
            for part in path:
                cfg = cfg[part]
            cfg.pop(last)
    assert free == frozen


def test_photographs_change_sizes_and_anchors_alone():
    """And keep MMDetection's parts, which their study ran with."""
    sizes = {"train.RandomChoiceResize.scales", "test.Resize.scale", "model.rpn_head.anchor_generator.scales"}
    changed = differences("mini-voc-full", "photos-cards-full")
    assert {key: changed.pop(key)[1] for key in [*changed] if key not in sizes} == {
        "model.rpn_head.type": "RPNHead",
        "model.roi_head.bbox_head.type": "BBoxHead",
        "model.train_cfg.rpn.assigner.type": "MaxIoUAssigner",
        "sampler.square": None,
    }
    assert set(changed) == sizes


def test_the_frozen_models(tmp_path):
    for transfer_id, frozen_res5 in (("voc-frozen", False), ("voc-frozen-res5", True)):
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(resolved(transfer_id).model)
        frozen = weights.frozen_keys(model)
        layer4 = [key for key in weights.trunk_places(model) if key.startswith("layer4.")]
        assert set(frozen) == set(weights.trunk_places(model)) - (set() if frozen_res5 else set(layer4))
        assert model.roi_head.shared_head.norm.training and model.roi_head.shared_head.norm.weight.requires_grad


def test_the_summary_keeps_the_machine_out():
    one = protocols.summary(resolved())
    assert one == protocols.summary(resolved(world_size=4, data="elsewhere", classes=["a"]))
    assert one == protocols.summary(resolved(options={"train_dataloader.num_workers": 0}))
    assert one["total_batch"] == 16 and one["optimiser.optimizer.lr"] == 0.02
    assert one["train.RandomFlip.prob"] == 0.5 and one["hooks.PreciseBNHook.num_iters"] == 200


@pytest.mark.parametrize(
    "option",
    [
        {"optim_wrapper.optimizer.lr": 0.01},
        {"optim_wrapper.type": "AmpOptimWrapper"},
        {"total_batch": 8},
        {"precise_bn_iters": 0},
        {"model.backbone.norm_cfg.type": "BN"},
        {"train_dataloader.dataset.pipeline.3.prob": 0.0},
        {"model.test_cfg.rcnn.score_thr": 0.0},
        {"custom_hooks": [dict(type="BackboneHook"), dict(type="PreciseBNHook")]},
    ],
)
def test_the_summary_shows_what_can_change_a_number(option):
    assert protocols.summary(resolved(options=option)) != protocols.summary(resolved())


def test_fewer_iterations_keep_the_shape_of_the_schedule():
    cfg = resolved(options={"max_iters": 60})
    assert cfg.train_cfg.max_iters == cfg.train_cfg.val_interval == 60
    assert cfg.param_scheduler[1].milestones == [45, 55] and cfg.param_scheduler[0].end == 20
    own = resolved(options={"max_iters": 60, "param_scheduler.1.milestones": [50]})
    assert own.param_scheduler[1].milestones == [50] and own.param_scheduler[0].end == 101


def test_the_command_line_reaches_its_places():
    cfg = protocols.resolve(protocols.load("voc-full"), data="kit", classes=["a", "b"], seed=7, backbone="b.file")
    assert cfg.train_dataloader.dataset.seed == 7 and cfg.custom_hooks[0].path == "b.file"
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == "kit" and loader.dataset.classes == ["a", "b"]
    assert cfg.model.roi_head.bbox_head.num_classes == 2


def test_a_loader_without_workers_keeps_none():
    cfg = resolved(options={"train_dataloader.num_workers": 0})
    assert not cfg.train_dataloader.persistent_workers and cfg.test_dataloader.persistent_workers


def test_the_batch_is_shared_among_processes():
    loader = resolved(world_size=8).train_dataloader
    assert loader.batch_size == loader.sampler.batch_size == 2


@pytest.mark.parametrize(
    ("transfer_id", "options", "message"),
    [
        ("voc-ful", {}, "no id matches 'voc-ful': did you mean voc-full"),
        ("voc-full", {"max_iterations": 3}, "no setting max_iterations"),
        ("voc-full", {"train_dataloader.batch_size": 3}, "is set by total_batch"),
        ("voc-full", {"custom_hooks.9.path": 3}, "no setting custom_hooks.9.path: custom_hooks has the items 0 to 2"),
        ("voc-full", {"total_batch": 0}, "total_batch is 0"),
        ("voc-full", {"max_iters": "many"}, "max_iters is 'many': give a number"),
    ],
)
def test_wrong_ids_and_options_are_refused(transfer_id, options, message):
    with pytest.raises(UserError, match=message):
        resolved(transfer_id, options)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="total_batch=16 does not divide among 3"):
        resolved(world_size=3)


@pytest.mark.parametrize("transfer_id", experiments.transfer_ids())
def test_every_config_introduces_itself(transfer_id):
    docstring = ast.get_docstring(ast.parse(experiments.transfer_ids()[transfer_id].read_text()))
    assert experiments.describe(experiments.transfer_ids()[transfer_id]) == docstring.splitlines()[0]
    for part in ("Paper: ", f"Run: resim-bench transfer {transfer_id} --backbone ", "Expect: "):
        assert f"\n{part}" in docstring
    assert set(protocols.load(transfer_id).expected_data) == {"name", "train_images", "test_images", "classes"}
