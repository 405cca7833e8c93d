"""What the doctor looks at on any machine: each look is ready here, and is not where what it looks at is broken."""

import contextlib
import importlib.metadata
import os
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pretrain import train
from resim_bench.harness import draws
from resim_bench.machine import estimate, hardware
from resim_bench.machine.doctor import LEFT_OUT, NOT_READY, NOTED, READY
from resim_bench.machine.hardware import Need, Step
from tests.pretrain.helpers import TINY_RUN, noise_images


def test_versions_are_held_against_the_pins(monkeypatch):
    assert hardware.versions().state == READY
    version = importlib.metadata.version

    def other(**versions):
        monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or version(name))
        return hardware.versions()

    assert other(torch="2.11.0+cpu").state == READY, "another build of the same"
    assert other(numpy="2.3.0").state == NOTED and "numpy 2.3.0 instead of 2.2.6" in other(numpy="2.3.0").said
    assert other(torch="2.12.0") == (NOT_READY, "torch 2.12.0 instead of 2.11.0", "")


def test_gpus_that_torch_does_not_find_are_not_ready(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU 0: H100\necho GPU 1: H100\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert hardware.listed(0).state == hardware.listed(1).state == NOT_READY and hardware.listed(2).state == READY
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.listed(0).state == LEFT_OUT, "they are hidden on purpose"
    tool.write_text("#!/bin/sh\necho no driver is loaded\nexit 9\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert hardware.listed(0).state == LEFT_OUT


@pytest.mark.parametrize(("free", "state"), [(79, READY), (60, NOTED)])
def test_a_gpu_that_others_use_is_noted(monkeypatch, free, state):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (free << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "H100")
    assert hardware.gpu(0)[:2] == (state, f"H100, 80.0 GB, of which {free}.0 GB are free")


def test_arithmetic_that_is_less_precise_than_it_should_be_is_not_ready(monkeypatch):
    monkeypatch.setattr(hardware, "rate", lambda device, precision: 2e12)
    found = hardware.arithmetic("cpu")
    assert found.state == READY and found.said.startswith("TFLOP/s (error): float32 2 (")
    right = torch.matmul

    def ten_bits(x):
        rounded = (x.detach().view(torch.int32) & ~0x1FFF).view(x.dtype) if x.dtype == torch.float32 else x.detach()
        return x + (rounded - x).detach()

    inputs = [torch.randn(64, 64) for _ in range(2)]
    monkeypatch.setattr(hardware, "_products", lambda: [(lambda x, y: right(ten_bits(x), ten_bits(y)), inputs)])
    found = hardware.arithmetic("cpu")
    assert found.state == NOT_READY and "float32 is" in found.said


def test_what_is_no_number_is_far_apart():
    one = torch.ones(2)
    assert hardware.apart([one, one * torch.nan], [one, one]) > 1e9
    assert hardware.apart([one * torch.nan, one], [one, one]) > 1e9
    assert hardware.apart([one * 3], [one * 2]) == 0.5


def test_a_gpu_slower_than_the_others_is_named(monkeypatch):
    rates = dict(zip(("cuda:0", "cuda:1", "cuda:2"), (5.0, 2.0, 5.0), strict=True))
    monkeypatch.setattr(hardware, "rate", lambda device, precision: rates[device])
    assert hardware.beside(list(rates))[:2] == (NOTED, "the slowest, GPU 1, has 40% of the others' speed")
    rates["cuda:1"] = 4.9
    assert hardware.beside(list(rates)).state == READY


def ask_both():
    """What two processes answer, with batch norm that does not know of the other."""
    return hardware._collect(), hardware._normalise(nn.BatchNorm2d)


@pytest.fixture(scope="module")
def two_processes():
    """Their answers to `collectives`, and to `sync_batch_norm`, on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return list(zip(*hardware.together(2, ask_both), strict=True))


def test_processes_sum_and_gather(monkeypatch, two_processes):
    answers = list(two_processes[0])
    monkeypatch.setattr(hardware, "together", lambda count, work: answers)
    found = hardware.collectives(2)
    assert found.state == READY and found.said.startswith("2 processes agree; the gradients of ResNet-50 take ")
    answers[1] = [3.0, [1.0, 1.0], 0.1]
    assert hardware.collectives(2).state == NOT_READY
    answers[1] = [3.0, [1.0, 2.0], 0.1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hardware.collectives(2).state == NOTED, "of GPUs, too slow"


def test_batch_norm_that_does_not_sum_over_processes_is_not_ready(monkeypatch, two_processes):
    monkeypatch.setattr(hardware, "together", lambda count, work, norm: two_processes[1])
    assert hardware.sync_batch_norm(2).state == NOT_READY

    def synchronised(count, work, norm):
        values, gradients, *rest = hardware._normalised(nn.BatchNorm2d(hardware.CHANNELS), hardware._maps(count))
        parts = zip(*(np.split(tensor.numpy(), count) for tensor in (values, gradients)), strict=True)
        return [[*part, *(tensor.numpy() for tensor in rest)] for part in parts]

    monkeypatch.setattr(hardware, "together", synchronised)
    assert hardware.sync_batch_norm(2).state == READY


def test_a_step_that_differs_when_it_is_repeated_is_noted_or_worse():
    def step(noise):
        return lambda: {"loss": torch.ones(3), "w": 1 + noise * torch.rand(3)}

    assert hardware.twice(step(0)) == (READY, "2 losses and gradients, the same bit for bit", "")
    found = hardware.twice(step(1e-5))
    assert found.state == NOTED and found.said.startswith("1 of 2 losses and gradients differ, by ")
    assert hardware.twice(step(0.5)).state == NOT_READY


@pytest.mark.parametrize(("free", "state"), [(10**12, READY), (10**10, NOTED), (10**9, NOT_READY)])
def test_free_disk(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    assert hardware.free(tmp_path / "not yet" / "there").state == state
    assert hardware.shared_memory(10**10).state == (READY if free == 10**12 else NOT_READY)


def test_disks_are_measured_and_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "WRITTEN", 2**21)
    monkeypatch.setattr(hardware, "READ", 4)
    monkeypatch.setattr(hardware, "CHECKPOINT", 1)
    place = tmp_path / "work_dirs"
    assert hardware.writing(place).state == READY
    assert hardware.reading(tmp_path / "data", place, Need(0.1, "few")).state == READY
    assert hardware.reading(tmp_path / "data", place, Need(1e9, "many")).state == NOTED
    assert not list(tmp_path.iterdir())
    image = tmp_path / "data" / "class" / "x.JPEG"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"content")
    assert f"of {tmp_path / 'data'}" in hardware.reading(tmp_path / "data", place, Need(0.1, "few")).said
    monkeypatch.setattr(hardware, "CHECKPOINT", 1e15)
    assert hardware.writing(place).state == NOTED


class Draws(torch.utils.data.Dataset):
    """Indexed as a sampler's draws are."""

    def __len__(self):
        return 4

    def __getitem__(self, item):
        return sum(item)


def test_loaders_are_held_against_what_is_needed():
    assert hardware.supply(Draws(), 2, 2, Need(0.1, "few")).state == READY
    assert hardware.supply(Draws(), 2, 2, Need(1e9, "many")).state == NOTED
    assert hardware.need("voc-full", 16, 8) == (16 / 0.537, "30/s feed 8 V100")
    assert hardware.need("voc-full", 16, 0).rate == hardware.need("voc-full", 16, 1).rate == 16 / 0.537 / 8


MEASURED = estimate.Measured(100, 32, 0.2, 0.001, 8, 0, 1, 2 << 30, 20 << 30, 10**9, 32, group=32)


@pytest.mark.parametrize(
    ("changes", "state", "said"),
    [
        ({}, READY, "22.0 GB of 24.0 GB at 32 images a GPU, 0.2 s a step"),
        ({"batch_memory": 22 << 30}, NOT_READY, "24.0 GB of 24.0 GB at 32 images"),
        ({"sample": 0.1}, NOTED, "1.6 s a step, 0.2 s without loading"),
    ],
)
def test_memory_is_held_against_the_gpu(monkeypatch, changes, state, said):
    asked = {}

    def measured(run, measure, **options):
        asked.update(options, run=run)
        return MEASURED._replace(**changes)

    monkeypatch.setattr(estimate, "measured", measured)
    monkeypatch.setattr(estimate, "this_machine", lambda: estimate.Machine("8 x GPU", 16, True, 8))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (0, 24 << 30))
    run = estimate.Run("pretrain", "in100-resim-c4", 1)
    found = hardware.memory(run, None, {"batch": 32}, 8)
    assert found.state == state and said in found.said
    assert asked == {"run": run, "cfg_options": {"batch": 32}, "counted": 2}


def test_each_step_is_measured_once_at_a_process_s_batch(monkeypatch):
    steps = {"a": Step(256, 32, ["x"]), "b": Step(256, 32, ["x"]), "c": Step(96, 32, ["x"]), "d": Step(16, 1, ["y"])}
    monkeypatch.setattr(hardware, "gpus", lambda: 8)
    found = list(hardware.memories("pretrain", lambda: steps, None, "batch", "less"))
    assert [check.what for check in found] == ["memory of a", "memory of c", "memory of d"]
    assert [check.args[2] for check in found] == [{"batch": 32}, {"batch": 32}, {"batch": 2}]
    monkeypatch.setattr(hardware, "gpus", lambda: 0)
    (left,) = hardware.memories("pretrain", None, None, "batch", "less")
    assert left.look(*left.args).state == LEFT_OUT


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A tiny pre-training of as many iterations, in this process."""
    monkeypatch.setattr(hardware, "together", lambda count, work, *args: [work(*args)])
    monkeypatch.setenv("WORLD_SIZE", "1")
    options = TINY_RUN | {"max_iters": hardware.ITERATIONS, "workers": 0}
    images = noise_images(tmp_path / "images")
    return partial(train.run, "mini-moco-v2", data=images, cfg_options=options)


@pytest.mark.slow
def test_a_run_that_is_cut_off_is_continued_to_the_same_weights(run, tmp_path):
    found = hardware.continued(run, 1, tmp_path)
    assert found.state == READY and found.said.endswith("cut off and continued: the same bits")
    assert sorted(os.listdir(tmp_path)) == ["cut", "images", "whole"]


@pytest.mark.slow
def test_a_run_that_continues_with_other_images_is_seen(run, tmp_path, monkeypatch):
    monkeypatch.setattr(draws.DrawSampler, "skip", lambda self, count: None)
    found = hardware.continued(run, 1, tmp_path)
    assert found.state == NOT_READY and found.said.endswith("apart, two whole runs 0e+00")


def test_a_run_that_was_not_cut_off_is_seen(run, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "cut_off", contextlib.nullcontext)
    found = hardware.continued(run, 1, tmp_path)
    assert found == (NOT_READY, "cut off after iteration 2, it left checkpoints of [4]", "")


@pytest.mark.parametrize("count", [0, 1, 8])
def test_what_needs_gpus_is_left_out_without(monkeypatch, tmp_path, count):
    monkeypatch.setattr(hardware, "gpus", lambda: count)
    found = {check.what: check.look for check in hardware.checks(tmp_path, tmp_path)}
    assert sum(name.startswith("GPU ") for name in found) == count
    alone = found["SyncBN against one process"] is hardware.leave_out
    assert alone == (count < 2) and ("GPUs beside each other" in found) == (count > 1)
    assert (found[f"all-reduce and all-gather, {'NCCL' if count else 'gloo'}"] is hardware.leave_out) == (count == 1)
