"""A measurement of a transfer: facts of the whole run from a few iterations and tested images."""

import time

import pytest

from resim_bench.data import photographs
from resim_bench.errors import UserError
from resim_bench.harness import trace
from resim_bench.machine import estimate as machine
from tests.transfer.conftest import TINY, TINY_COCO
from transfer import estimate, hooks, protocols

OPTIONS = {key: value for key, value in TINY.items() if key not in ("max_iters", "precise_bn_iters")}


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Three iterations, of which two count: 1.0 and 1.4 seconds long, 0.2 and 0.4 of them spent loading."""
    monkeypatch.setattr(machine, "WHOLE", 2)
    monkeypatch.setattr(estimate, "TESTED", 2)
    read = trace.progress

    def as_if(run_dir):
        times = ((9.0, 8.0), (1.0, 0.2), (1.4, 0.4))
        return [line | {"time": t, "data_time": d} for line, (t, d) in zip(read(run_dir), times, strict=True)]

    monkeypatch.setattr(trace, "progress", as_if)


def test_a_probe_tells_the_whole_run(devkit, monkeypatch):
    precise = hooks.population_statistics
    monkeypatch.setattr(hooks, "population_statistics", lambda *args: time.sleep(1) or precise(*args))
    facts = estimate.measure("mini-voc-full", devkit.parent, OPTIONS | {"precise_bn_iters": 50})
    assert (facts.iterations, facts.batch, facts.measured, facts.workers) == (400, 2, 2, 0)
    assert facts.step == pytest.approx(0.9) and facts.sample == pytest.approx(0.3 / 2)
    assert facts.shared > 50 * 0.5, "two batches of precise batch norm took a second"
    assert facts.once < 60 and facts.memory > facts.disk > 1e6


def test_the_images_to_test_are_the_protocols(devkit, monkeypatch):
    options = OPTIONS | {"precise_bn_iters": 0}
    monkeypatch.setattr(estimate, "_seconds_a_test", lambda runner: 0.5)
    assert estimate.measure("mini-voc-frozen", devkit, options).shared == 0.5 * 200


def test_a_part_of_the_batch_is_scaled(coco_folder, monkeypatch):
    """And what a pyramid starts from does not matter."""
    monkeypatch.setattr(machine, "PIXELS", 128 * 64)
    facts = estimate.measure("coco-1x-fpn-t", coco_folder, TINY_COCO | {"max_iters": 9})
    assert (facts.iterations, facts.batch, facts.measured) == (9, 2, 1)
    assert facts.step == pytest.approx(2 * 0.9) and facts.sample == pytest.approx(0.3)


@pytest.mark.parametrize(("transfer_id", "classes"), [("voc-full", 20), ("coco-1x", 80)])
def test_without_images_it_generates_some_and_says_so(transfer_id, classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photographs, "DISTINCT", 4)
    cfg = protocols.load(transfer_id)
    root, generated = estimate._images(cfg, None, tmp_path / "generated")
    data_set = protocols.data_set(cfg)
    facts = data_set.facts(data_set.find(root), cfg.classes, protocols.has_masks(cfg))
    assert generated and len(facts["classes"]) == classes
    assert facts["train_images"] >= 4 and facts["test_images"] >= estimate.TESTED


@pytest.mark.slow
def test_what_stands_in_trains_and_is_tested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photographs, "DISTINCT", 4)
    facts = estimate.measure("coco-1x", cfg_options=TINY_COCO | {"max_iters": 9})
    assert facts.generated and facts.iterations == 9 and not list(tmp_path.iterdir())


def test_a_folder_of_other_images_is_left_to_pre_training(devkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = protocols.load("voc-full")
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    assert estimate._images(cfg, tmp_path / "imagenet", tmp_path / "generated")[1]
    assert estimate._images(cfg, devkit.parent, tmp_path) == (devkit, False)
    with pytest.raises(UserError, match="there is no folder .*typo: name another, or leave --data out"):
        estimate.measure("voc-full", tmp_path / "typo")


def test_a_cpu_measures_a_part_of_a_large_image(tmp_path):
    cfg = protocols.load("voc-full")
    assert estimate._shrink(cfg, 2) == 1 / 4 and estimate._shrink(protocols.load("voc-full"), 1) == 1
    assert cfg.test_scale == (666, 400) and cfg.scales[0] == (666, 240)
    assert cfg.model.train_cfg.rcnn.sampler.num == 128 and cfg.model.test_cfg.rpn.max_per_img == 250
    resolved = protocols.resolve(cfg, data=tmp_path, classes=["a"], seed=0, backbone="b")
    assert resolved.test_dataloader.dataset.pipeline[1].scale == (666, 400)
    few = protocols.load("voc-full", {"model.test_cfg.rpn.max_per_img": 3})
    estimate._shrink(few, 2)
    assert few.model.test_cfg.rpn.max_per_img == 1
