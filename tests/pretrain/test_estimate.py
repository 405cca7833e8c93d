"""A measurement of a pre-training: facts of the whole run from a few iterations."""

import time

import numpy as np
import pytest
from PIL import Image

from pretrain import estimate, train
from resim_bench.errors import UserError
from resim_bench.harness import trace
from resim_bench.machine import estimate as machine

TINY = {"batch": 8, "views.size": 32, "model.queue": 16, "model.bn_group": 4, "dataset.images": 83}


@pytest.fixture
def images(tmp_path):
    """An ImageFolder of 8 noise images."""
    folder = tmp_path / "imagefolder" / "class"
    folder.mkdir(parents=True)
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "imagefolder"


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Three iterations, of which two count: 1.0 and 1.4 seconds long, 0.2 and 0.4 of them spent loading."""
    monkeypatch.setattr(machine, "WHOLE", 2)
    read = trace.progress

    def as_if(run_dir):
        times = ((9.0, 8.0), (1.0, 0.2), (1.4, 0.4))
        return [line | {"time": t, "data_time": d} for line, (t, d) in zip(read(run_dir), times, strict=True)]

    monkeypatch.setattr(trace, "progress", as_if)


def test_a_probe_tells_the_whole_run(images):
    facts = estimate.measure("mini-moco-v2", images, TINY | {"max_iters": 7})
    assert (facts.iterations, facts.batch, facts.measured, facts.workers) == (7, 8, 8, 0)
    assert facts.step == pytest.approx(0.9) and facts.sample == pytest.approx(0.3 / 8)
    assert facts.shared == 0 and facts.once < 60
    assert 4e6 < facts.disk < 40e6, "a narrow ResNet-18 and a checkpoint of two"
    assert facts.memory > facts.disk and facts.batch_memory >= 0


def test_a_part_of_the_batch_is_scaled(images, monkeypatch):
    monkeypatch.setattr(machine, "PIXELS", 4 * 32**2)
    facts = estimate.measure("mini-moco-v2", images, TINY)
    assert (facts.measured, facts.batch, facts.iterations) == (4, 8, 8 * (83 // 8))
    assert facts.step == pytest.approx(2 * 0.9) and facts.sample == pytest.approx(0.3 / 4)


def test_an_untrained_backbone_is_calibrated_alone(images, monkeypatch):
    ran, run = [], train.run

    def noted(*args, cfg_options, **kwargs):
        ran.append(cfg_options["calibration_batches"])
        time.sleep(0.3)
        return run(*args, cfg_options=cfg_options, **kwargs)

    monkeypatch.setattr(train, "run", noted)
    options = {"batch": 8, "views.size": 32, "calibration_batches": 30}
    facts = estimate.measure("mini-random", images, options)
    assert ran == [1, 3] and facts.iterations == 0
    assert facts.once > 0.3 + 30 * 0.1, "of the second run a third is a batch"


def test_without_images_it_generates_some_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = estimate.measure("in100-supervised", cfg_options={"batch": 4, "views.size": 32, "model.bn_group": 4})
    assert facts.generated and facts.iterations > 10_000, "the whole run is that on the recipe's images"
    assert not list(tmp_path.iterdir())
    root, generated = estimate._images(train.load_recipe("in100-supervised", {"batch": 4}), None, tmp_path)
    assert generated and len(list(root.iterdir())) == 100, "all of its classes"


def test_a_folder_that_is_named_is_never_replaced(images, tmp_path):
    assert not estimate.measure("mini-moco-v2", images, TINY | {"max_iters": 7}).generated
    with pytest.raises(UserError, match="there is no folder .*typo: name another, or leave --data out"):
        estimate.measure("in100-moco-v2", tmp_path / "typo")


def test_images_may_be_those_of_a_folder_of_all_data(images):
    recipe = train.load_recipe("mini-moco-v2")
    assert estimate._images(recipe, images.parent, None) == estimate._images(recipe, images, None) == (images, False)


def test_a_mini_recipe_generates_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = train.load_recipe("mini-moco-v2", {"batch": 4})
    root, stands_in = estimate._images(recipe, None, tmp_path)
    assert len(list(root.rglob("*.jpg"))) == 4 and not stands_in


def test_settings_that_a_training_refuses_are_refused(images):
    with pytest.raises(UserError, match="not a multiple of the batch-norm group"):
        estimate.measure("in100-moco-v2", data=images, cfg_options=TINY | {"batch": 6, "model.queue": 18})
