"""The data benchmark: its reference does what the suite does, and its rows come out."""

import os

import numpy as np
import pytest
import torch

from pretrain.bench import data
from pretrain.geometry import correspond, windows
from pretrain.views import draw_crop
from tests.pretrain.helpers import SPEC


def test_the_reference_maps_windows_as_the_suite_does():
    rng = np.random.default_rng(0)
    grid, counts = windows(224, 48, 32), []
    for _ in range(20):
        crops = [draw_crop(rng, 500, 375, (0.2, 1.0)) for _ in range(2)]
        boxes, key_boxes, valid = data.release_windows(*crops, 224, 48, 32)
        expected, expected_valid = correspond(grid, *torch.tensor(crops, dtype=torch.float32)[:, None], 224)
        assert torch.equal(boxes, grid)
        assert torch.allclose(key_boxes, expected[0], atol=1e-3)
        assert torch.equal(valid, expected_valid[0])
        counts.append(int(valid.sum()))
    assert min(counts) < 10 and max(counts) > 25


def test_the_reference_reads_the_files_that_the_suite_reads(tmp_path):
    paths = data.photographs(tmp_path / "class", 3)
    sizes = [os.path.getsize(path) for path in paths]
    assert min(sizes) > 30_000 and max(sizes) < 100_000, "as photographs of this size have"
    release = data.ReleaseViews(tmp_path, SPEC, 48, 32)
    assert [release.images.path(i) for i in range(3)] == [str(path) for path in paths]
    item = release[0]
    assert item["query"].shape == item["key"].shape == (3, 224, 224) and item["query"].dtype == torch.float32
    assert item["query"].mean().abs() < 2, "normalised"


def test_the_reference_mirrors_every_second_image(tmp_path, monkeypatch):
    data.photographs(tmp_path / "class", 1)
    mirrored, mirror = [], data.F.hflip
    monkeypatch.setattr(data.F, "hflip", lambda image: mirrored.append(image) or mirror(image))
    release = data.ReleaseViews(tmp_path, SPEC | {"size": 32}, 8, 8)
    for _ in range(30):
        release[0]
    assert 0 < len(mirrored) < 30


def test_rows_are_rates_of_both(monkeypatch):
    monkeypatch.setattr(data, "IMAGES", 4)
    two_views, decoding = data.rows(pairs=1)
    assert two_views.unit == "pairs/s" and two_views.at_least == 3
    for row in (two_views, decoding):
        assert row.ratio == pytest.approx(row.ours / row.reference) and row.reference > 0
