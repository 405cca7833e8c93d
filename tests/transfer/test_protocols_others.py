"""Protocols of other authors, each held against its source (docs/sources.md) value by value."""

import pytest
import torch

from tests.transfer.conftest import make_coco, make_devkit
from tests.transfer.helpers import Built, check_learning_rate, differences, norms, spread_is

SYNC = "SyncBN"


def test_goyal19_differs_from_mocos_by_what_vissl_says():
    assert differences("voc-full", "voc-goyal19") == {
        "model.backbone.norm_cfg.type": [SYNC, "BN"],
        "model.backbone.norm_cfg.requires_grad": [True, False],
        "model.backbone.norm_eval": [False, True],
        "model.backbone.frozen_stages": [-1, 1],  # Detectron2's FREEZE_AT 2
        "model.roi_head.shared_head.type": ["ResLayerExtraNorm", "ResLayer"],  # Res5ROIHeads
        "model.roi_head.shared_head.norm_cfg.type": [SYNC, "BN"],
        "model.roi_head.shared_head.norm_cfg.requires_grad": [True, False],
        "model.roi_head.shared_head.norm_eval": [None, True],
        "model.roi_head.shared_head.stage": [None, 3],
        "model.roi_head.shared_head.dilation": [None, 1],
        "model.roi_head.shared_head.style": [None, "pytorch"],
        "model.roi_head.shared_head.frozen": [False, None],
        "hooks.PreciseBNHook.num_iters": [200, 0],
        "max_iters": [24000, 25000],
        "schedule.MultiStepLR.milestones": [[18000, 22000], [17000]],
    }


def test_pirl_differs_from_goyal19_by_its_learning_rate_and_warm_up():
    assert differences("voc-goyal19", "voc-pirl") == {
        "optimiser.optimizer.lr": [0.02, 0.002],
        "schedule.LinearLR.end": [101, 1001],
    }


def test_swav_differs_from_mocos_by_its_learning_rate_and_warm_up():
    assert differences("voc-full", "voc-swav") == {
        "optimiser.optimizer.lr": [0.02, 0.1],
        "schedule.LinearLR.end": [101, 1001],
        "schedule.LinearLR.start_factor": [0.001, 1 / 3],
    }


@pytest.mark.parametrize("schedule", ["1x", "2x"])
def test_four_convolutions_differ_from_the_papers_by_the_heads_alone(schedule):
    assert differences(f"coco-{schedule}", f"coco-{schedule}-4conv") == {
        "model.roi_head.bbox_head.num_shared_convs": [0, 4],
        "model.roi_head.bbox_head.num_shared_fcs": [2, 1],
        "model.roi_head.bbox_head.norm_cfg.type": [None, SYNC],
        "model.roi_head.bbox_head.norm_cfg.requires_grad": [None, True],
        "model.roi_head.mask_head.norm_cfg.type": [None, SYNC],
        "model.roi_head.mask_head.norm_cfg.requires_grad": [None, True],
    }


def test_frozen_norms_never_follow_and_never_train(tmp_path):
    built = Built("voc-goyal19", make_devkit(tmp_path / "VOCdevkit"))
    assert norms(built.trunk) and norms(built.roi.shared_head)
    assert not any(layer.training or layer.weight.requires_grad for layer in norms(built.model))
    convs = {n: m for n, m in built.trunk.named_modules() if isinstance(m, torch.nn.Conv2d)}
    frozen = {name.split(".")[0] for name, conv in convs.items() if not conv.weight.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert not hasattr(built.roi.shared_head, "norm"), "no extra norm"


@pytest.mark.parametrize(
    ("transfer_id", "rate", "warm_up", "first", "steps"),
    [
        ("voc-goyal19", 0.02, 100, 0.001, [17000]),
        ("voc-pirl", 0.002, 1000, 0.001, [17000]),
        ("voc-swav", 0.1, 1000, 1 / 3, [18000, 22000]),
    ],
)
def test_the_learning_rate_is_the_sources(transfer_id, rate, warm_up, first, steps, tmp_path):
    built = Built(transfer_id, make_devkit(tmp_path / "VOCdevkit"))
    check_learning_rate(built.cfg, warm_up, steps, until=steps[-1] + 10, rate=rate, first=first)


def test_the_box_head_of_four_convolutions(tmp_path):
    built = Built("coco-1x-4conv", make_coco(tmp_path / "coco"))
    convs, (fc,) = built.box.shared_convs, built.box.shared_fcs
    assert [(c.conv.in_channels, c.conv.out_channels, c.conv.kernel_size) for c in convs] == [(256, 256, (3, 3))] * 4
    assert all(c.conv.bias is None and isinstance(c.bn, torch.nn.SyncBatchNorm) for c in convs)
    assert all(spread_is(c.conv.weight, (2 / (256 * 9)) ** 0.5) for c in convs)  # c2_msra_fill
    assert (fc.in_features, fc.out_features) == (256 * 7 * 7, 1024)
    assert fc.weight.abs().max() <= (3 / fc.in_features) ** 0.5  # c2_xavier_fill
    masks = built.roi.mask_head.convs
    assert len(masks) == 4 and all(isinstance(c.bn, torch.nn.SyncBatchNorm) for c in masks)
    assert all(value.requires_grad for value in built.model.parameters())
