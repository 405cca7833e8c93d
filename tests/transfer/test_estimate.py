"""A measurement of a transfer: facts of the whole run from a few iterations and tested images."""

import time

import pytest

from resim_bench.errors import UserError
from resim_bench.harness import progress
from resim_bench.machine import estimate as machine
from tests.transfer.conftest import TINY, TINY_COCO
from transfer import estimate, hooks

OPTIONS = {key: value for key, value in TINY.items() if key not in ("max_iters", "precise_bn_iters")}


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Three iterations, of which two count: 1.0 and 1.4 seconds long, 0.2 and 0.4 of them spent loading."""
    monkeypatch.setattr(machine, "WHOLE", 2)
    monkeypatch.setattr(estimate, "TESTED", 2)
    read = progress.read

    def as_if(run_dir):
        times = ((9.0, 8.0), (1.0, 0.2), (1.4, 0.4))
        return [line | {"time": t, "data_time": d} for line, (t, d) in zip(read(run_dir), times, strict=True)]

    monkeypatch.setattr(progress, "read", as_if)


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


def test_without_images_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"VOC folder data/VOCdevkit does not exist.*of any folder in that format"):
        estimate.measure("voc-full")
