"""COCO's protocols made small: what they change of the full ones, where their levels lie, and whole runs."""

import pytest
import torch
from mmdet.structures.mask import PolygonMasks

from resim_bench import backbone, record
from resim_bench.data import scenes
from tests.transfer.conftest import make_backbone, random_pyramid
from tests.transfer.helpers import Built, check_learning_rate, check_row, differences, resolved
from tests.transfer.test_protocols_coco import anchors_of_level, level_of, pyramid
from transfer import train

CHANGED = {  # [coco-1x, mini-coco-1x], and nothing else
    "total_batch": [16, 4],
    "max_iters": [90000, 720],
    "schedule.LinearLR.end": [1001, 81],
    "schedule.MultiStepLR.milestones": [[60000, 80000], [480, 640]],
    "hooks.PreciseBNHook.num_iters": [200, 10],
    "train.RandomChoiceResize.scales": [
        [[1333, short] for short in range(640, 801, 32)],
        [[256, short] for short in (84, 96, 108)],
    ],
    "test.Resize.scale": [[1333, 800], [256, 96]],
    "model.data_preprocessor.pad_size_divisor": [32, 8],
    "model.backbone.depth": [50, 18],
    "model.backbone.base_channels": [None, 16],
    "model.backbone.strides": [[1, 2, 2, 2], [1, 1, 1, 2]],
    "model.neck.in_channels": [[256, 512, 1024, 2048], [16, 32, 64, 128]],
    "model.neck.out_channels": [256, 64],
    "model.rpn_head.in_channels": [256, 64],
    "model.rpn_head.feat_channels": [256, 64],
    "model.rpn_head.anchor_generator.base_sizes": [None, [4, 8, 16, 32, 64]],
    "model.rpn_head.anchor_generator.scales": [[8], [1]],
    "model.rpn_head.anchor_generator.strides": [[4, 8, 16, 32, 64], [4, 4, 4, 8, 16]],
    "model.roi_head.bbox_head.in_channels": [256, 64],
    "model.roi_head.bbox_head.fc_out_channels": [1024, 256],
    "model.roi_head.mask_head.in_channels": [256, 64],
    "model.roi_head.mask_head.conv_out_channels": [256, 32],
    "model.train_cfg.rpn.sampler.num": [256, 64],
    "model.train_cfg.rpn_proposal.nms_pre": [2000, 200],
    "model.train_cfg.rpn_proposal.max_per_img": [1000, 200],
    "model.train_cfg.rcnn.sampler.num": [512, 32],
    "model.test_cfg.rpn.nms_pre": [1000, 200],
    "model.test_cfg.rpn.max_per_img": [1000, 50],
} | {
    f"model.roi_head.{kind}_roi_extractor.{setting}": change
    for kind in ("bbox", "mask")
    for setting, change in (
        ("out_channels", [256, 64]),
        ("featmap_strides", [[4, 8, 16, 32], [4, 4, 4, 8]]),
        ("finest_scale", [None, 7]),
    )
}


def test_what_is_made_small():
    def plain(value):
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    found = differences("coco-1x", "mini-coco-1x")
    assert {key: plain(change) for key, change in found.items()} == CHANGED


@pytest.mark.parametrize("schedule", ["1x", "2x"])
def test_the_learning_rate_falls_at_the_fractions_of_the_full_schedules(schedule):
    small, full = (resolved(f"{task}-{schedule}") for task in ("mini-coco", "coco"))
    for cfg in (small, full):
        assert [step / cfg.max_iters for step in cfg.param_scheduler[1].milestones] == [2 / 3, 8 / 9]
    check_learning_rate(small, warm_up=80, steps=small.param_scheduler[1].milestones, until=small.max_iters)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "mini"
    return scenes.write(root, pretrain_images=1, train_images=8, test_images=4) / "coco"


@pytest.fixture(scope="module")
def built(folder):
    return Built("mini-coco-1x", folder, scenes.CLASSES)


ROWS = {
    "pyramid: p2 to p6 of a 64 x 96 image": lambda b: (
        [tuple(level.shape[1:]) for level in pyramid(b)]
        == [(64, 16, 24), (64, 16, 24), (64, 16, 24), (64, 8, 12), (64, 4, 6)]
    ),
    "anchors: an eighth of COCO's": lambda b: (
        [anchors_of_level(b, k) for k in range(5)]
        == [(pytest.approx([4 * 2**k] * 3), pytest.approx([0.5, 1, 2]), 0) for k in range(5)]
    ),
    "anchors: strides of the maps": lambda b: (
        b.rpn.prior_generator.strides == [(s, s) for s in (4, 4, 4, 8, 16)]
        and b.rpn.prior_generator.num_base_priors == [3] * 5
    ),
    "RoI level map: an eighth of COCO's": lambda b: (
        [level_of(b, side) for side in (13.9, 14.1, 27.9, 28.1, 55.9, 56.1)] == [2, 3, 3, 4, 4, 5]
    ),
    "RoI pooling: strides of the maps": lambda b: (
        [1 / r.spatial_scale for r in b.roi.bbox_roi_extractor.roi_layers] == [4, 4, 4, 8]
        and [1 / r.spatial_scale for r in b.roi.mask_roi_extractor.roi_layers] == [4, 4, 4, 8]
    ),
    "RoI level map: boxes and masks alike": lambda b: (
        b.roi.bbox_roi_extractor.finest_scale == b.roi.mask_roi_extractor.finest_scale
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_row(built, row):
    check_row(row, ROWS[row], built)


def test_masks_train_with_their_holes():
    """What the mask head is to learn is the mask at the target's cells, but for those at a border."""
    holes = 0
    for index in range(12):
        for item in scenes.scene(0, "trainval", index).objects:
            x0, y0, x1, y1 = item.box
            side = 28
            rows = (y0 + (torch.arange(side) + 0.5) * (y1 - y0) / side).long()
            columns = (x0 + (torch.arange(side) + 0.5) * (x1 - x0) / side).long()
            expected = torch.from_numpy(item.mask)[rows][:, columns]
            polygons = [torch.tensor(polygon).numpy() for polygon in scenes.polygons(item.mask)]
            masks = PolygonMasks([polygons], *item.mask.shape)
            cut = masks.crop_and_resize(torch.tensor([item.box]).numpy(), (side, side), [0], "cpu")
            found = torch.from_numpy(cut.to_ndarray()[0]).bool()
            inner, outer = (
                torch.nn.functional.max_pool2d(m[None].float(), 3, 1, 1)[0] > 0 for m in (~expected, expected)
            )
            away = ~(inner & outer)
            assert torch.equal(found[away], expected[away])
            holes += scenes.CLASSES[item.label] == "ring" and bool((~expected & away)[10:18, 10:18].any())
    assert holes > 3


TINY = {
    "max_iters": 2,
    "total_batch": 2,
    "precise_bn_iters": 1,
    "model.train_cfg.rcnn.sampler.num": 8,
    "model.test_cfg.rpn.max_per_img": 10,
    "model.test_cfg.rcnn.score_thr": 0.0,
}
PYRAMID = ["fpn_lateral3", "fpn_lateral4", "fpn_lateral5", "fpn_output3", "fpn_output4"]


@pytest.mark.parametrize("transfer_id", [f"mini-coco-{name}" for name in ("1x", "1x-frozen", "1x-fpn-t", "2x")])
def test_a_run(transfer_id, folder, tmp_path):
    file = make_backbone(tmp_path / "fpn.safetensors", **random_pyramid((16, 32, 64, 128), dim=64))
    path = train.run(transfer_id, file, data=folder, work_dir=tmp_path / "work", cfg_options=TINY)
    entry = record.read(path)
    assert set(entry["metrics"]) == {f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "AP50", "AP75")}
    side = entry["transfer"]
    assert side["data"]["classes"] == list(scenes.CLASSES)
    assert side["deviations"]["data.train_images"] == [400, 8] and side["deviations"]["data.test_images"] == [200, 4]
    loads_pyramid = transfer_id.endswith("fpn-t")
    assert (side["parameters"]["dropped"] == PYRAMID) != loads_pyramid
    log = next((tmp_path / "work").rglob("*.log")).read_text()
    frozen = len(backbone.trunk_state(backbone.load(file)[0])) if transfer_id.endswith("frozen") else 0
    assert f"{frozen} frozen tensors of the trunk are what was loaded, bit for bit" in log
