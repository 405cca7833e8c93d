"""Two views of an image: what is drawn at random, how a view is rendered from the draws, and what a network gets.

The flip is applied to the image, before the crops, and crops live in the flipped frame; so a shared flip needs no
term in the correspondence of windows. Drawing and rendering are apart: every method draws the same numbers in the
same order, whatever it does with them, so that methods can share what a seed can share.
"""

import functools
import math
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, Strict, model_validator
from torch import Tensor

from resim_bench.settings import Pixels, Schema, Share, Span, one_of, says

cv2.setNumThreads(0)  # views are small, and there is one loader process per core

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet, RGB, of 255
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow and torchvision weigh the channels


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.addWeighted(image, factor, image, 0, 0)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * LUMA)


def _hue(image: np.ndarray, turn: float) -> np.ndarray:
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)  # faster than uint8, and finer
    hsv[..., 0] += 360 * (turn % 1)  # OpenCV takes angles beyond a turn, but none below zero
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


JITTER_STEPS = (_brightness, _contrast, _saturation, _hue)


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
    narrow, wide = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect, x, y in rng.random((10, 4)).tolist():  # all ten, so that the stream does not depend on the first
        area = width * height * (scale[0] + (scale[1] - scale[0]) * area)
        aspect = math.exp(narrow + (wide - narrow) * aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
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


def _jitter(image: np.ndarray, view: View, _) -> np.ndarray:
    for step, factor in view.jitter:
        image = JITTER_STEPS[step](image, factor)
    return image


def _grayscale(image: np.ndarray, view: View, _) -> np.ndarray:
    return _saturation(image, 0) if view.grayscale else image


def _sampled_gaussian(sigma: float) -> np.ndarray:
    """At whole pixels, three standard deviations on either side; below 0.5 it does next to nothing."""
    return cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma)


def _three_boxes(sigma: float) -> np.ndarray:
    """Pillow's GaussianBlur, MoCo's, in one: three means over boxes whose ends count in part, of the same variance.

    Source: Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", section 2.
    """
    variance = sigma**2 / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    end = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box = np.array([end, *[1.0] * (2 * whole + 1), end])
    box /= box.sum()
    return np.convolve(np.convolve(box, box), box)[:, None]


BLURS = {"gaussian": (_sampled_gaussian, cv2.BORDER_REFLECT_101), "boxes": (_three_boxes, cv2.BORDER_REPLICATE)}


def _blur(image: np.ndarray, view: View, spec: dict) -> np.ndarray:
    if view.blur_sigma is None:
        return image
    kernel_of, border = BLURS[spec.get("blur", "gaussian")]
    kernel = kernel_of(view.blur_sigma)
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=border)  # exact, and faster than cv2.GaussianBlur


PHOTOMETRIC = {"jitter": _jitter, "grayscale": _grayscale, "blur": _blur}


def _above_0(span):
    if span[0] <= 0:
        raise ValueError
    return span


def _of_an_area(span):
    if span[1] > 1:
        raise ValueError
    return span


def _each_once(steps):
    if len(set(steps)) < len(steps):
        raise ValueError
    return steps


class ViewSettings(Schema):
    """A recipe's `views`: what `draw_pair` and `render` take as `spec`."""

    size: Pixels
    scale: Annotated[
        Span, AfterValidator(_of_an_area), says("two numbers from 0 to 1, the smaller first, the larger above 0")
    ]
    flip: one_of("independent", "shared")
    jitter: Annotated[
        tuple[Share, Share, Share, Annotated[float, Field(ge=0, le=0.5)]],
        Strict(False),
        says("four numbers from 0 to 1, the last, of the hue, up to 0.5"),
    ]
    jitter_p: Share
    grayscale_p: Share
    blur_sigma: Span
    blur_p: Share
    photometric: Annotated[
        tuple[one_of(*PHOTOMETRIC), ...],
        Strict(False),
        AfterValidator(_each_once),
        says(f"a list of {', '.join(PHOTOMETRIC)}, each at most once, in the order of their turn"),
    ]
    ratio: Annotated[Span, AfterValidator(_above_0), says("two numbers above 0, the smaller first")] = (3 / 4, 4 / 3)
    blur: one_of(*BLURS) = "gaussian"

    @model_validator(mode="after")
    def _goes_together(self):
        if self.blur_sigma[1] > self.size:
            raise ValueError(
                f"views.blur_sigma is up to {self.blur_sigma[1]:g} px in a view of {self.size} px: blur less"
            )
        return self


def render(image: Tensor, view: View, spec: dict) -> Tensor:
    """Render a view.

    Args:
        image: `(H, W, 3)` uint8, RGB (float32 works where no colour step is drawn).
        view: its draws.
        spec: the recipe's `views`: side `size` in pixels, the steps in their order, `photometric`, the kind of `blur`.

    Returns:
        `(S, S, 3)` of the image's dtype, contiguous.
    """
    left, top, right, bottom = view.crop
    if view.flip:  # the crop alone is mirrored, so its place is taken back to the image as it was read
        left, right = image.shape[1] - right, image.shape[1] - left
    crop = image[None, top:bottom, left:right].permute(0, 3, 1, 2)
    pixels = F.interpolate(crop, size=[spec["size"]] * 2, mode="bilinear", antialias=True).permute(0, 2, 3, 1)[0]
    pixels = (pixels.flip(1) if view.flip else pixels).numpy()
    for step in spec["photometric"]:
        pixels = PHOTOMETRIC[step](pixels, view, spec)
    return torch.from_numpy(pixels)


def crop_box(view: View) -> Tensor:
    """The crop as `(4,)` float32, as `pretrain.geometry` takes it."""
    return torch.tensor(view.crop, dtype=torch.float32)


@functools.cache  # a copy to the GPU in each step would make the host wait
def _mean_and_std(device: torch.device, width: int) -> tuple[Tensor, Tensor]:
    """Those of the channels of each pixel of an image's row, `(width * 3,)`: long rows vectorise, pixels do not."""
    mean, std = torch.tensor((MEAN, STD), device=device).repeat(1, width)
    return mean, std


def normalise(images: Tensor) -> Tensor:
    """`(N, H, W, 3)` uint8 to `(N, 3, H, W)` float32, channels last, with ImageNet's mean and deviation removed."""
    mean, std = _mean_and_std(images.device, images.shape[2])
    return images.flatten(2).float().sub_(mean).div_(std).view(images.shape).permute(0, 3, 1, 2)
