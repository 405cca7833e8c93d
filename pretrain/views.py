"""Two views of an image: what is drawn at random, and how a view is rendered from the draws.

The flip is applied to the image, before the crops, and crops live in the flipped frame; so a shared flip needs no
term in the correspondence of windows. Drawing and rendering are apart: every method draws the same numbers in the
same order, whatever it does with them, so that methods can share what a seed can share.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

JITTER_STEPS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


@dataclass(frozen=True)
class View:
    """The random numbers of one view.

    Attributes:
        flip: whether the image is mirrored before the crop.
        crop: `(left, top, right, bottom)` whole pixels in the frame of the image after the flip.
        jitter: `(step, factor)` pairs in the order they are applied (steps of `JITTER_STEPS`); empty for none.
        grayscale: whether colour is dropped.
        blur_sigma: of the Gaussian, in pixels of the view; None for none.
    """

    flip: bool
    crop: tuple[int, int, int, int]
    jitter: tuple[tuple[int, float], ...]
    grayscale: bool
    blur_sigma: float | None


def draw_crop(rng: np.random.Generator, width: int, height: int, scale, ratio=(3 / 4, 4 / 3)) -> tuple:
    """RandomResizedCrop's draw: area uniform in `scale`, log aspect uniform in `ratio`; a central crop if ten fail."""
    chosen = None
    for _ in range(10):  # all ten are drawn, so that the stream does not depend on which one fits
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        x, y = rng.random(2)
        if chosen is None and 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            chosen = (left, top, left + w, top + h)
    if chosen:
        return chosen
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def draw_view(rng: np.random.Generator, width: int, height: int, spec: dict) -> View:
    """Draw one view of an image of `width` x `height` pixels by `spec`, the recipe's `views`."""
    crop = draw_crop(rng, width, height, spec["scale"], spec.get("ratio", (3 / 4, 4 / 3)))
    flip = rng.random() < 0.5
    jittered, gray, blurred = rng.random(3) < (spec["jitter_p"], spec["grayscale_p"], spec["blur_p"])
    order = rng.permutation(4)
    strength = np.array(spec["jitter"])
    center = np.array([1, 1, 1, 0])  # hue is added, the others multiply
    factors = rng.uniform(center - strength, center + strength)
    sigma = rng.uniform(*spec["blur_sigma"])
    jitter = tuple((int(step), float(factors[step])) for step in order) if jittered else ()
    return View(bool(flip), crop, jitter, bool(gray), float(sigma) if blurred else None)


def draw_pair(rng: np.random.Generator, width: int, height: int, spec: dict) -> tuple[View, View]:
    """Draw query and key view; with `flip="shared"` the key takes the query's flip."""
    query, key = draw_view(rng, width, height, spec), draw_view(rng, width, height, spec)
    if spec["flip"] == "shared":
        key = View(query.flip, key.crop, key.jitter, key.grayscale, key.blur_sigma)
    return query, key


def _jitter(image: Tensor, view: View) -> Tensor:
    for step, factor in view.jitter:
        image = JITTER_STEPS[step](image, factor)
    return image


def _grayscale(image: Tensor, view: View) -> Tensor:
    return tv.rgb_to_grayscale(image, num_output_channels=3) if view.grayscale else image


def _blur(image: Tensor, view: View) -> Tensor:
    if view.blur_sigma is None:
        return image
    # Three standard deviations on either side; the Gaussian beyond weighs under 0.3 %.
    size = 2 * math.ceil(3 * view.blur_sigma) + 1
    return tv.gaussian_blur(image, [size, size], [view.blur_sigma, view.blur_sigma])


PHOTOMETRIC = {"jitter": _jitter, "grayscale": _grayscale, "blur": _blur}


def render(image: Tensor, view: View, spec: dict) -> Tensor:
    """Render a view.

    Args:
        image: `(3, H, W)` uint8 (any dtype works where no colour step is drawn).
        view: its draws.
        spec: the recipe's `views`: side `size` in pixels, and the order of the steps, `photometric`.

    Returns:
        `(3, S, S)` of the image's dtype.
    """
    if view.flip:
        image = tv.horizontal_flip(image)
    left, top, right, bottom = view.crop
    size = [spec["size"], spec["size"]]
    image = tv.resized_crop(image, top, left, bottom - top, right - left, size, antialias=True)
    for step in spec["photometric"]:
        image = PHOTOMETRIC[step](image, view)
    return image


def crop_box(view: View) -> Tensor:
    """The crop as `(4,)` float32, as `pretrain.geometry` takes it."""
    return torch.tensor(view.crop, dtype=torch.float32)
