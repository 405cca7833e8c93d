"""What the doctor looks at in pre-training: ready here, and not where what it looks at is broken."""

import itertools

import pytest
import torch

from pretrain import doctor, regions, train
from resim_bench.data import photographs
from resim_bench.machine import hardware
from resim_bench.machine.doctor import LEFT_OUT, NOT_READY, READY
from tests.pretrain.helpers import TINY_RUN


@pytest.mark.parametrize("what", doctor.OPERATORS)
def test_operators_are_right(what):
    assert doctor.operator(what, "cpu").state == READY


@pytest.mark.parametrize(
    ("what", "place", "name"),
    [
        ("Precise RoI pooling", doctor, "prroi_pool"),
        ("region loss", regions, "info_nce_in_chunks"),
        ("instance loss", doctor, "info_nce"),
    ],
)
def test_an_operator_that_is_wrong_in_float32_is_not_ready(monkeypatch, what, place, name):
    right = getattr(place, name)

    def wrong(first, *args):
        return right(first * 1.01 if first.dtype == torch.float32 else first, *args)

    monkeypatch.setattr(place, name, wrong)
    found = doctor.operator(what, "cpu")
    assert found.state == NOT_READY and found.said.endswith(" from float64")


def test_pooling_is_held_against_each_box_on_its_own(monkeypatch):
    pool = doctor.prroi_pool
    monkeypatch.setattr(doctor, "prroi_pool", lambda features, boxes, stride: pool(features, boxes + 1, stride))
    assert doctor.operator("Precise RoI pooling", "cpu").state == NOT_READY


def test_a_step_is_the_same_when_it_is_repeated(monkeypatch):
    assert doctor.repeated("cpu").state == READY
    step, calls = doctor._step, itertools.count(1)

    def drifting(*args):
        model, losses = step(*args)
        return model, {name: loss * next(calls) for name, loss in losses.items()}

    monkeypatch.setattr(doctor, "_step", drifting)
    assert doctor.repeated("cpu").state == NOT_READY


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor.processes(2).state == READY
    alone = doctor._step(4, slice(None), "cpu", torch.float64)
    state = doctor._state(alone[0], doctor._numbers(*alone))
    whole = doctor._step(8, slice(None), "cpu", torch.float64)[0]
    monkeypatch.setattr(doctor, "together", lambda *_: [state | {"queue": whole.queue.numpy()}])
    assert doctor.processes(2).state == NOT_READY, "what one process gives by itself"


def test_views_come_from_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "DISTINCT", 2)
    monkeypatch.setattr(doctor, "loader_workers", lambda wanted: min(wanted, 2))
    assert "/s by one worker, " in doctor.views(tmp_path, 0).said


def test_the_batches_that_workers_hold(monkeypatch):
    monkeypatch.setattr(doctor, "loader_workers", lambda wanted: wanted)
    recipe = train.load_recipe(doctor.RECIPE)
    assert doctor.shared_bytes(recipe) == 8 * 2 * 256 * 2 * 224 * 224 * 3


def test_a_short_run_leaves_the_backbone_that_detection_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "DISTINCT", 2)
    monkeypatch.setattr(hardware, "continued", lambda run, count, folder: run(work_dir=folder / "whole"))
    monkeypatch.setattr(doctor, "RECIPE", "mini-moco-v2")
    monkeypatch.setattr(doctor, "SHORT", doctor.SHORT | {"views.size": TINY_RUN["views.size"], "workers": 0})
    assert doctor.short(tmp_path / "pretrain", 0) == doctor.trained(tmp_path)
    assert doctor.trained(tmp_path).is_file()


def test_the_short_run_is_of_a_real_recipe():
    recipe = train.load_recipe(doctor.RECIPE, doctor.SHORT)
    shipped = train.load_recipe(doctor.RECIPE)
    assert recipe.model == shipped.model and recipe.views == shipped.views and recipe.max_iters == 4


def test_every_recipe_has_its_memory_looked_at(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "gpus", lambda: 8)
    found = {check.what: check for check in doctor.checks(tmp_path)}
    recipes = {"in100-moco-v2", "in100-resim-c4", "in1k-resim-fpn-200ep", "in1k-densecl-200ep", "in100-supervised"}
    assert {f"memory of {i}" for i in recipes} <= found.keys()
    assert "memory of in1k-moco-v2-200ep" not in found, "its step is that of IN-100"
    assert found["memory of in100-moco-v2"].args[2] == {"batch": 32}
    monkeypatch.setattr(hardware, "gpus", lambda: 1)
    alone = {check.what: check for check in doctor.checks(tmp_path)}
    assert alone["a step of several processes against one"].look(hardware.ONE_GPU).state == LEFT_OUT
