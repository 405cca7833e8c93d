"""The bench of VOC AP: its data are what it says, both sides agree on them, and a disagreement is seen."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from transfer import bench
from transfer.metrics import THRESHOLDS


@pytest.fixture(scope="module")
def data():
    return bench.voc_like(300)


def test_the_set_is_like_vocs(data):
    truth, found = data.truth, data.found
    assert len(data.images.ids) == 300 == len(np.unique(truth.image))
    assert (~truth.ignored).sum() / 300 == pytest.approx(2.4, rel=0.1)
    assert truth.ignored.mean() == pytest.approx(0.2, rel=0.2)
    assert set(truth.label) == set(range(20))
    count = np.bincount(found.image)
    assert count.max() == 100 and np.mean(count) > 99.9


def test_rounding_decides_nothing(data):
    scores = data.found.score
    assert scores.dtype == np.float32 and len(np.unique(scores)) == len(scores)
    for boxes in (data.found.box, data.truth.box):
        assert boxes.dtype == np.float32 and (boxes * 16 == np.round(boxes * 16)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    for i in range(300):
        sides = (side.box[side.image == i] for side in (data.found, data.truth))
        iou = box_iou(*(torch.from_numpy(boxes).double() for boxes in sides)).numpy()
        assert np.abs(iou[..., None] - THRESHOLDS).min() > 0.99e-5


def test_a_row_compares_what_agrees(monkeypatch):
    monkeypatch.setattr(bench, "IMAGES", 60)
    (row,) = bench.rows()
    assert (row.unit, row.at_least) == ("s", 10)
    assert row.ratio == pytest.approx(row.reference / row.ours)


def test_a_disagreement_is_an_error(monkeypatch):
    monkeypatch.setattr(bench, "IMAGES", 60)
    monkeypatch.setattr(bench, "mmdetection_average_precision", lambda *_: {"AP": 30.0})
    with pytest.raises(RuntimeError, match="AP is .* by transfer.metrics and 30.0 by MMDetection"):
        bench.rows()


def test_check_holds_to_a_millionth():
    results = {"AP": 40.0, "AP50": 50.0}
    bench.check(results | {"AP75": 1.0}, results)
    bench.check(results, results | {"AP50": 50.0 + 0.9e-4})
    for other in (50.0 + 1.1e-4, float("nan")):
        with pytest.raises(RuntimeError, match="AP50"):
            bench.check(results, results | {"AP50": other})


def test_growth_is_over_detections(monkeypatch):
    counted = []
    measure = bench.voc_average_precision
    monkeypatch.setattr(
        bench, "voc_average_precision", lambda test: counted.append(len(test.found.label)) or measure(test)
    )
    row = bench.growth((1000, 2000))
    assert row.what == "VOC AP, 1,000 to 2,000 detections"
    assert sorted({round(count, -3) for count in counted}) == [1000, 2000]
