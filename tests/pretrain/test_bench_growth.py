"""The bench of growth does the work that it names, and would show a bad exponent."""

import os
import re

import pytest

from pretrain.bench import growth
from pretrain.geometry import windows
from resim_bench.machine import timing

SIZES = {"BATCHES": (16, 32), "FILES": (1000, 2000), "IMAGES": (1000, 3000), "EPOCHS": (1, 3), "BATCH": 16}


@pytest.fixture
def small(monkeypatch):
    for name, value in SIZES.items():
        monkeypatch.setattr(growth, name, value)


def test_rows_have_their_sizes_and_leave_nothing(small, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = list(growth.rows(rounds=1))
    assert [row.at_most - timing.SLACK for row in rows] == pytest.approx([1, 2, 1, 1, 2, 1, 1, 1, 0, 0, 1, 1])
    assert {row.sizes for row in rows} == {
        (16, 32),
        (16, 36, 64, 169),
        (1000, 2000),
        (1000, 3000),
        (1, 3),
        (2 * 10**5, 6 * 10**5),
    }
    assert all(len(row.what) <= timing.WIDTH and min(row.seconds) > 0 for row in rows)
    assert os.listdir(tmp_path) == [] and os.environ["XDG_CACHE_HOME"] == str(tmp_path)


@pytest.mark.parametrize(("count", "stride"), growth.STRIDES.items())
def test_a_view_has_so_many_windows(count, stride):
    assert len(windows(224, 48, stride)) == count
    assert growth.finding_windows(16, count)().valid.shape == (16, count)


def test_a_remembered_folder_is_not_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = growth.remembered(tmp_path, 20_000)
    work()
    work()
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "remembered-20000")) == 0


def test_a_survey_that_finds_other_images_is_refused(tmp_path):
    growth.survey(tmp_path, 1000)()
    with pytest.raises(RuntimeError, match=re.escape("1,000 images of 1 class, not 2,000")):
        growth.read(tmp_path / "files-1000", 2000)
