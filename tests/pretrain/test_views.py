"""Views of an image whose pixels are their own coordinates: do windows land where the geometry says?"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pretrain.geometry import correspond, windows
from pretrain.views import View, crop_box, draw_crop, draw_pair, draw_view, render
from tests.pretrain.helpers import SPEC

PLAIN = SPEC | {"jitter_p": 0.0, "grayscale_p": 0.0, "blur_p": 0.0}


def coordinate_image(width=500, height=375):
    """`(3, H, W)` float: channel 0 is x, channel 1 is y of the pixel's centre."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((x, y, torch.zeros_like(x)))


def box_mean(view, box):
    """Exact mean of the pixels (squares of constant value) under a box: `(C,)`."""
    cells = torch.arange(view.shape[-1], dtype=torch.float64)

    def coverage(start, end):
        covered = (torch.minimum(cells + 1, end) - torch.maximum(cells, start)).clamp(min=0)
        return covered / (end - start)

    x0, y0, x1, y1 = box.double()
    return torch.einsum("chw,h,w->c", view.double(), coverage(y0, y1), coverage(x0, x1))


def window_errors(flip, pairs=20, key_flip=None):
    """Distance in image pixels between the coordinates that a window and its key window show, both views rendered."""
    image, rng = coordinate_image(), np.random.default_rng(0)
    grid, errors = windows(224, 48, 32), []
    for _ in range(pairs):
        query, key = draw_pair(rng, 500, 375, PLAIN | {"flip": "shared"})
        query, key = replace(query, flip=flip), replace(key, flip=flip if key_flip is None else key_flip)
        views = [render(image, view, PLAIN) for view in (query, key)]
        key_boxes, valid = correspond(grid, crop_box(query)[None], crop_box(key)[None], 224)
        for i in valid[0].nonzero().flatten():
            seen = [box_mean(view, box)[:2] for view, box in zip(views, (grid[i], key_boxes[0, i]), strict=True)]
            errors.append((seen[0] - seen[1]).norm().item())
    return errors


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_and_its_key_window_show_the_same_place(flip):
    errors = window_errors(flip)
    assert len(errors) > 200
    # A crop's outermost source pixels have no neighbour to interpolate with, which shows at the border only.
    assert max(errors) < 0.3
    assert np.mean(errors) < 0.03


def test_views_flipped_apart_do_not_correspond():
    assert np.mean(window_errors(flip=False, key_flip=True)) > 30


def test_a_flipped_view_is_the_crop_of_the_flipped_image():
    image = coordinate_image()
    view = View(flip=True, crop=(10, 20, 234, 244), jitter=(), grayscale=False, blur_sigma=None)
    assert torch.equal(render(image, view, PLAIN), image.flip(-1)[:, 20:244, 10:234])


@pytest.mark.parametrize("flip", ["shared", "independent"])
def test_both_flip_modes_draw_the_same_numbers(flip):
    pairs = [draw_pair(np.random.default_rng(i), 500, 375, PLAIN | {"flip": flip}) for i in range(200)]
    others = [draw_pair(np.random.default_rng(i), 500, 375, PLAIN | {"flip": "shared"}) for i in range(200)]
    assert [p[1].crop for p in pairs] == [p[1].crop for p in others]
    together = np.mean([query.flip == key.flip for query, key in pairs])
    assert together == 1 if flip == "shared" else 0.4 < together < 0.6


def test_crops_are_random_resized_crops():
    rng = np.random.default_rng(0)
    crops = np.array([draw_crop(rng, 500, 375, (0.2, 1.0)) for _ in range(3000)])
    widths, heights = crops[:, 2] - crops[:, 0], crops[:, 3] - crops[:, 1]
    area, aspect = widths * heights / (500 * 375), widths / heights
    assert crops.min() >= 0 and crops[:, 2].max() <= 500 and crops[:, 3].max() <= 375
    assert area.min() > 0.19 and area.max() > 0.9
    assert 0.74 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.35


def test_an_extreme_image_gets_a_central_crop():
    assert draw_crop(np.random.default_rng(0), 1000, 10, (0.9, 1.0)) == (493, 0, 506, 10)


def test_photometric_steps_happen_as_often_as_the_recipe_says():
    views = [draw_view(np.random.default_rng(i), 500, 375, SPEC) for i in range(2000)]
    assert np.mean([bool(v.jitter) for v in views]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([v.grayscale for v in views]) == pytest.approx(0.2, abs=0.03)
    sigmas = [v.blur_sigma for v in views if v.blur_sigma is not None]
    assert len(sigmas) / 2000 == pytest.approx(0.5, abs=0.04)
    assert min(sigmas) >= 0.1 and max(sigmas) <= 2.0
    factors = np.array([sorted(v.jitter) for v in views if v.jitter])[..., 1]
    assert factors.min(axis=0) == pytest.approx([0.6, 0.6, 0.6, -0.1], abs=0.01)
    assert factors.max(axis=0) == pytest.approx([1.4, 1.4, 1.4, 0.1], abs=0.01)


def test_the_recipe_orders_the_photometric_steps():
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=rng)
    view = View(False, (0, 0, 40, 40), ((0, 1.4), (1, 0.6), (2, 1.3), (3, 0.05)), False, 1.0)
    spec = SPEC | {"size": 40}
    default = render(image, view, spec)
    release = render(image, view, spec | {"photometric": ("blur", "jitter", "grayscale")})
    assert default.shape == (3, 40, 40) and default.dtype == torch.uint8
    assert not torch.equal(default, release)
    gray = render(image, replace(view, grayscale=True), spec)
    assert torch.equal(gray[0], gray[1]) and torch.equal(gray[1], gray[2])
