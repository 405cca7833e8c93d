"""Windows and their correspondence, against the counts of the reference and a twin that maps one box at a time."""

import numpy as np
import pytest
import torch

from pretrain.geometry import batch_windows, correspond, overlap_windows, permuted, windows
from pretrain.levels import Level
from pretrain.views import draw_crop
from tests.references import regions


def random_crops(count, width=500, height=375, seed=0):
    rng = np.random.default_rng(seed)
    draw = [[draw_crop(rng, width, height, (0.2, 1.0)) for _ in range(2)] for _ in range(count)]
    return torch.tensor(draw, dtype=torch.float32).unbind(dim=1)


@pytest.mark.parametrize(
    ("window", "stride", "count"), [(48, 32, 36), (16, 16, 169), (48, 16, 121), (64, 48, 16), (32, 24, 64)]
)
def test_number_of_windows(window, stride, count):
    assert windows(224, window, stride).shape == (count, 4)


def test_windows_run_row_by_row_in_float32():
    grid = windows(224, 48, 32)
    assert grid.dtype == torch.float32
    assert grid[0].tolist() == [0, 0, 48, 48]
    assert grid[1].tolist() == [32, 0, 80, 48]
    assert grid[6].tolist() == [0, 32, 48, 80]
    assert grid[-1].tolist() == [160, 160, 208, 208]


def test_a_window_that_ends_at_the_border_is_left_out():
    assert windows(96, 48, 48)[:, 2:].max() < 96
    assert len(windows(97, 48, 48)) == 4


def test_correspondence_equals_the_twin():
    query_crop, key_crop = random_crops(20)
    grid = windows(224, 48, 32)
    key_boxes, valid = correspond(grid, query_crop, key_crop, 224)
    for n in range(20):
        for i, box in enumerate(grid.tolist()):
            expected = regions.correspond(box, query_crop[n].tolist(), key_crop[n].tolist(), 224)
            assert key_boxes[n, i].tolist() == pytest.approx(expected, abs=1e-2)
            inside = min(expected) >= 0 and max(expected) <= 224
            if min(abs(v) for v in expected) > 1e-2 and min(abs(v - 224) for v in expected) > 1e-2:
                assert bool(valid[n, i]) == inside


def test_identical_crops_give_identity_and_every_window_valid():
    crop = torch.tensor([[13.0, 7.0, 311.0, 222.0]])
    grid = windows(224, 48, 32)
    key_boxes, valid = correspond(grid, crop, crop, 224)
    assert torch.allclose(key_boxes[0], grid, atol=1e-4)
    assert valid.all()


def test_validity_is_closed_with_a_little_slack():
    crop = torch.tensor([[0.0, 0.0, 224.0, 224.0]])
    boxes = torch.tensor([[-0.00005, 0, 48, 48], [176, 176, 224, 224], [176, 0, 224.001, 48], [-0.01, 0, 48, 48]])
    assert correspond(boxes, crop, crop, 224)[1].tolist() == [[True, True, False, False]]


def test_a_window_may_have_to_end_before_the_border_of_the_key_view():
    crop = torch.tensor([[0.0, 0.0, 224.0, 224.0]])
    boxes = torch.tensor([[0.0, 0, 48, 48], [176, 0, 224, 48], [0, 176, 48, 224], [170, 170, 223.9, 223.9]])
    assert correspond(boxes, crop, crop, 224, "open")[1].tolist() == [[True, False, False, True]]
    level = {"map_stride": 16, "window": 48, "stride": 16, "anchor": "overlap"}
    levels = Level(**level), Level(**level, border="open")
    counts = [batch_windows(crop, crop, 224, level, 1).valid.sum().item() for level in levels]
    assert counts == [144, 121], "of 12 x 12, those in the last column and row end at the border"


def test_crops_that_do_not_overlap_have_no_valid_window():
    left, right = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[200.0, 0, 300, 100]])
    assert not correspond(windows(224, 48, 32), left, right, 224)[1].any()


@pytest.mark.parametrize(
    ("window", "stride", "from_query", "from_overlap"),
    [(16, 16, 108, 121), (48, 16, 71, 82), (48, 32, 20.5, 22.8), (64, 48, 8.0, 9.2)],
)
def test_mean_number_of_valid_windows(window, stride, from_query, from_overlap):
    """The reference's simulation: photos of 500 x 375, scale 0.2 to 1."""
    crops = random_crops(4000)
    grids = windows(224, window, stride), overlap_windows(*crops, 224, window, stride)
    means = [correspond(grid, *crops, 224)[1].sum(dim=1).float().mean().item() for grid in grids]
    assert means == [pytest.approx(from_query, rel=0.04), pytest.approx(from_overlap, rel=0.04)]


def test_the_overlap_grid_starts_at_the_overlap():
    query_crop, key_crop = torch.tensor([[0.0, 0, 224, 224]]), torch.tensor([[100.0, 50, 324, 274]])
    boxes = overlap_windows(query_crop, key_crop, 224, 48, 32)
    assert boxes[0, 0].tolist() == [100, 50, 148, 98]
    key_boxes, valid = correspond(boxes, query_crop, key_crop, 224)
    assert key_boxes[0, 0].tolist() == [0, 0, 48, 48]
    assert valid[0, 0]
    assert not valid[0, -1], "the last window of the grid leaves the query view"


@pytest.mark.parametrize("anchor", ["query", "overlap"])
def test_a_batch_has_the_windows_of_its_anchor(anchor):
    crops = random_crops(6)
    level = Level(map_stride=16, window=48, stride=32, anchor=anchor)
    found = batch_windows(*crops, 224, level, group=3)
    grid = overlap_windows(*crops, 224, 48, 32) if anchor == "overlap" else windows(224, 48, 32).expand(6, -1, -1)
    torch.testing.assert_close(found.query_boxes, grid, rtol=0, atol=0)
    key_boxes, valid = correspond(grid, *crops, 224)
    torch.testing.assert_close(found.key_boxes, key_boxes, rtol=0, atol=0)
    assert torch.equal(found.valid, valid)
    assert torch.equal(torch.cat(found.rows), valid.flatten().nonzero()[:, 0])


def test_one_window_may_be_the_whole_view():
    """Wherever the crops lie: there is nothing to correspond."""
    found = batch_windows(*random_crops(4), 56, Level(map_stride=4, window=12, stride=8, anchor="view"), group=2)
    assert found.query_boxes.tolist() == found.key_boxes.tolist() == [[[0, 0, 56, 56]]] * 4
    assert found.valid.all() and [rows.tolist() for rows in found.rows] == [[0, 1], [2, 3]]


def test_permuted_regions_are_those_of_the_image_in_another_order():
    torch.manual_seed(0)
    valid = torch.rand(5, 9) < 0.6
    valid[4] = False
    regions = torch.arange(45.0).reshape(5, 9, 1).expand(-1, -1, 3)
    found = permuted(regions, valid)
    for image in range(5):
        own, counts = regions[image, valid[image]], valid[image]
        assert sorted(found[image, counts, 0].tolist()) == own[:, 0].tolist()
    assert not torch.equal(found[valid], regions[valid])
    drawn = [permuted(regions, valid)[0, valid[0], 0].tolist().index(regions[0, valid[0], 0][0]) for _ in range(400)]
    counts = torch.bincount(torch.tensor(drawn))
    assert len(counts) == valid[0].sum() and counts.min() > 0.5 * 400 / len(counts), "every place is as likely"
