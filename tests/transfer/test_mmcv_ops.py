"""The stand-in for mmcv's compiled operators, through mmcv's own functions."""

import importlib.util
import subprocess
import sys

import pytest
import torch
import torchvision

import transfer  # noqa: F401  (installs the stand-in)
from resim_bench.errors import UserError
from transfer import mmcv_ops


def rois():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(12, 2, generator=generator, dtype=torch.float64) * 60
    size = torch.rand(12, 2, generator=generator, dtype=torch.float64) * 50 + 1
    image = torch.arange(12, dtype=torch.float64)[:, None] % 2
    return torch.cat([image, corner, corner + size], 1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_equals_torchvision_in_both_directions(aligned, sampling_ratio):
    from mmcv.ops import roi_align

    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 3, 12, 16, generator=generator, dtype=torch.float64)
    weights = torch.randn(12, 3, 4, 5, generator=generator, dtype=torch.float64)
    results = []
    for pool in (
        lambda x: roi_align(x, rois(), (4, 5), 1 / 8, sampling_ratio, "avg", aligned),
        lambda x: torchvision.ops.roi_align(x, rois(), (4, 5), 1 / 8, sampling_ratio, aligned),
    ):
        x = features.clone().requires_grad_()
        y = pool(x)
        (y * weights).sum().backward()
        results.append((y.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][1].abs().sum() > 0


def test_roi_align_backward_is_the_gradient_of_forward():
    from mmcv.ops import roi_align

    features = torch.randn(2, 1, 6, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois()[:3], (2, 2), 1 / 8, 2, "avg", True), features)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_keeps_what_a_loop_keeps(offset):
    from mmcv.ops import nms

    generator = torch.Generator().manual_seed(2)
    corner = torch.randint(0, 20, (60, 2), generator=generator).float()
    boxes = torch.cat([corner, corner + torch.randint(3, 20, (60, 2), generator=generator)], 1)
    scores = torch.randperm(60, generator=generator) / 60
    kept = []
    for i in scores.argsort(descending=True).tolist():
        wide = boxes + torch.tensor([0, 0, offset, offset])
        if all(torchvision.ops.box_iou(wide[[i]], wide[[j]]) <= 0.4 for j in kept):
            kept.append(i)
    detections, indices = nms(boxes, scores, 0.4, offset=offset)
    assert indices.tolist() == kept and 1 < len(kept) < 60
    assert torch.equal(detections, torch.cat([boxes[kept], scores[kept, None]], 1))


def test_an_operator_that_is_missing_is_named():
    with pytest.raises(UserError, match="'softnms' is not in torchvision"):
        mmcv_ops._Extension(mmcv_ops.NAME).softnms(torch.zeros(1, 4), torch.zeros(1))


def test_maximum_pooling_is_refused():
    for function in (mmcv_ops.roi_align_forward, mmcv_ops.roi_align_backward):
        with pytest.raises(UserError, match="pool_mode"):
            function(*[None] * 5, 2, 2, 1.0, 0, pool_mode=0, aligned=True)


def test_the_stand_in_can_be_found_as_mmengine_looks_for_it():
    assert importlib.util.find_spec("mmcv._ext") is not None


def test_the_compiled_extension_is_used_where_there_is_one(tmp_path, monkeypatch):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / "_ext.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, mmcv_ops.NAME, None)
    monkeypatch.delitem(sys.modules, mmcv_ops.NAME)
    monkeypatch.delitem(sys.modules, "mmcv", raising=False)
    assert mmcv_ops.is_compiled()
    mmcv_ops.install()
    assert mmcv_ops.NAME not in sys.modules


def test_importing_the_room_is_light_and_importing_mmdet_after_it_is_silent():
    program = (
        "import sys, transfer\n"
        "from transfer.metrics import voc_average_precision\n"
        "assert not [m for m in sys.modules if m.startswith('mmdet.models') or m.startswith('mmcv.ops')]\n"
        "import mmdet.apis, mmdet.datasets, mmdet.evaluation\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OneDL" not in done.stdout + done.stderr
    assert "faster_coco_eval" not in done.stdout + done.stderr
