"""The two-view pipeline against the release's, for `resim-bench bench data`: one core, from files to a batch."""

import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter
from torch.utils.data import Dataset, default_collate

from pretrain.data import TwoViews, collate_pairs, list_images, read_image
from pretrain.train import load_recipe
from pretrain.views import MEAN, STD, normalise
from resim_bench.harness import runner
from resim_bench.machine.timing import Comparison, compare, in_turn, one_thread

IMAGES, WIDTH, HEIGHT = 64, 500, 375  # pixels, as many of ImageNet's are
RECIPE = "in100-resim-c4"


def rows(pairs: int = 5) -> list[Comparison]:
    """From files to a batch as the network takes it, ours and the release's; and the decoding alone. On one thread."""
    runner.keep_freed_memory()  # as a training does
    recipe = load_recipe(RECIPE)
    views, level = recipe.views.to_dict(), recipe.model.levels.c4
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder) / "class", IMAGES)
        suite = TwoViews(folder, "", views, seed=0)
        release = ReleaseViews(folder, views, level["window"], level["stride"])
        collate = partial(collate_pairs, view_size=views["size"], levels={"c4": level}, bn_group=IMAGES)

        def ours():
            batch = collate([suite[draw, draw] for draw in range(IMAGES)])
            return [normalise(batch[name]) for name in ("query", "key")]

        two_views = in_turn(
            ours,
            lambda: default_collate([release[index] for index in range(IMAGES)]),
            pairs,
        )
        decoding = in_turn(
            lambda: [read_image(path) for path in paths],
            lambda: [Image.open(path).convert("RGB") for path in paths],
            pairs,
        )
    size = f"{WIDTH} x {HEIGHT} JPEG, one core"
    return [
        compare(f"two views of a {size}", two_views, amount=IMAGES, unit="pairs/s", at_least=3),
        compare(f"decoding alone of a {size}", decoding, amount=IMAGES, unit="images/s"),
    ]


def photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of quality 90 with the contrast, colour and spectrum of photographs.

    They have 66 kB on average; 87 COCO photographs scaled to this size and quality had 57 kB.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:03}.jpg" for i in range(count)]
    for path in paths:
        Image.fromarray(photograph(rng, WIDTH, HEIGHT)).save(path, quality=90)
    return paths


def photograph(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise whose amplitude falls with frequency as a photograph's does: `(height, width, 3)` uint8."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(rng.standard_normal((4, height, width))) / frequency**1.4
    noise = np.fft.irfft2(spectrum, s=(height, width))
    *colour, light = noise / noise.std(axis=(1, 2), keepdims=True)
    pixels = 128 + 55 * light[..., None] + 20 * np.stack(colour, axis=-1)
    return pixels.clip(0, 255).astype(np.uint8)


class ReleaseViews(Dataset):
    """Two views and their windows as the release makes them: PIL transforms in its order, windows one by one.

    Args:
        root: an ImageFolder.
        views: the recipe's `views`; `photometric` is the release's.
        window, stride: of the grid of windows, in pixels of a view.
    """

    def __init__(self, root, views, window, stride):
        self.images = list_images(root, "")
        self.views, self.window, self.stride = views, window, stride
        self.photometric = T.Compose(
            [
                T.RandomApply([T.Lambda(self._blur)], p=views["blur_p"]),
                T.RandomApply([T.ColorJitter(*views["jitter"])], p=views["jitter_p"]),
                T.RandomGrayscale(p=views["grayscale_p"]),
                T.ToTensor(),
                T.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
            ]
        )

    def __len__(self):
        return len(self.images.names)

    def __getitem__(self, index):
        image = Image.open(self.images.path(index)).convert("RGB")
        if random.random() < 0.5:
            image = F.hflip(image)
        query, query_crop = self._view(image)
        key, key_crop = self._view(image)
        boxes, key_boxes, valid = release_windows(query_crop, key_crop, self.views["size"], self.window, self.stride)
        return {"query": query, "key": key, "boxes": boxes, "key_boxes": key_boxes, "valid": valid}

    def _view(self, image):
        """A view `(3, S, S)` float32 and its crop."""
        size = [self.views["size"], self.views["size"]]
        top, left, height, width = T.RandomResizedCrop.get_params(image, self.views["scale"], (3 / 4, 4 / 3))
        view = F.resized_crop(image, top, left, height, width, size)
        return self.photometric(view), (left, top, left + width, top + height)

    def _blur(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.views["blur_sigma"])))


def release_windows(query_crop, key_crop, size: int, window: int, stride: int):
    """The windows of a pair, each mapped on its own: boxes `(R, 4)`, their boxes in the key view, and which count."""
    boxes, key_boxes, valid = [], [], []
    for y in range(0, size - window, stride):
        for x in range(0, size - window, stride):
            box = (x, y, x + window, y + window)
            key_box = [_map(value, query_crop[i % 2 :: 2], key_crop[i % 2 :: 2], size) for i, value in enumerate(box)]
            boxes.append(box)
            key_boxes.append(key_box)
            valid.append(min(key_box) >= 0 and max(key_box) <= size)
    return torch.tensor(boxes, dtype=torch.float32), torch.tensor(key_boxes), torch.tensor(valid)


def _map(value, query_range, key_range, size):
    """A coordinate of the query view in the key view; ranges are `(start, end)` of the crops along its axis."""
    (query_start, query_end), (key_start, key_end) = query_range, key_range
    place = query_start + value * (query_end - query_start) / size
    return (place - key_start) * size / (key_end - key_start)
