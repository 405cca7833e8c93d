"""What the doctor looks at in detection: ready here, and not where what it looks at is broken."""

import sys

import mmcv.ops
import pytest
import torch

from resim_bench.data import photographs
from resim_bench.machine import hardware
from resim_bench.machine.doctor import LEFT_OUT, NOT_READY, READY
from tests.transfer.conftest import make_backbone
from transfer import doctor


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A few generated images, smaller than those of VOC."""
    monkeypatch.setattr(photographs, "DISTINCT", 4)
    monkeypatch.setattr(photographs, "TESTED", 2)
    monkeypatch.setattr(photographs, "VOC", (125, 94))
    return tmp_path / "images"


def break_float32(monkeypatch):
    """RoIAlign that is wrong as a kernel of one precision may be."""
    extension = sys.modules["mmcv.ops.roi_align"].ext_module
    right = extension.roi_align_forward

    def wrong(features, rois, output, *args, **kwargs):
        right(features, rois, output, *args, **kwargs)
        if output.dtype == torch.float32:
            output[:, ::2].mul_(1.5)

    monkeypatch.setattr(extension, "roi_align_forward", wrong)


def test_operators_are_right():
    found = doctor.operators("cpu")
    assert found.state == READY and found.said.startswith("torchvision's in mmcv's place; RoIAlign ")


def test_operators_that_are_wrong_are_not_ready(monkeypatch):
    monkeypatch.setattr(mmcv.ops, "nms", lambda boxes, scores, threshold: (boxes, torch.arange(len(boxes))))
    assert "NMS keeps other boxes" in doctor.operators("cpu").said
    monkeypatch.undo()
    break_float32(monkeypatch)
    assert doctor.operators("cpu").state == NOT_READY


@pytest.mark.parametrize("which", doctor.STEPS)
def test_a_detector_s_step_is_held_against_float64(images, monkeypatch, which):
    assert doctor.step(which, images, "cpu").state == READY
    assert doctor.repeated(which, images, "cpu").state == READY
    break_float32(monkeypatch)
    assert doctor.step(which, images, "cpu").state == NOT_READY


def test_images_come_from_workers(images, monkeypatch):
    monkeypatch.setattr(doctor, "loader_workers", lambda wanted: min(wanted, 1))
    assert doctor.loading("voc-full", images, 0).said.endswith("; 4/s feed 1 V100")


def test_a_short_run_needs_the_backbone_of_the_pre_training(images, tmp_path):
    found = doctor.short(images, tmp_path / "transfer", tmp_path / "backbone.safetensors", 0)
    assert found.state == LEFT_OUT and "it needs the backbone of the pre-training" in found.said


@pytest.mark.slow
def test_a_short_run_is_cut_off_and_continued(images, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "together", lambda count, work, *args: [work(*args)])
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(doctor, "C4", "mini-voc-full")
    backbone = make_backbone(tmp_path / "backbone.safetensors")
    assert doctor.short(images, tmp_path / "transfer", backbone, 0).state == READY


def test_every_protocol_has_its_memory_looked_at(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "gpus", lambda: 8)
    found = {check.what: check for check in doctor.checks(tmp_path, tmp_path)}
    assert {f"memory of {i}" for i in ("voc-full", "voc-frozen", "coco-1x", "coco-1x-4conv")} <= found.keys()
    assert "memory of coco-2x" not in found, "its step is that of coco-1x"
    assert found["memory of voc-full"].args[2] == {"total_batch": 2}
