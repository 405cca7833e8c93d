"""Images for pre-training: an ImageFolder, the 100 classes of IN-100 where they apply, two views a draw."""

import functools
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS, FUNCTIONS
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.io import ImageReadMode, decode_jpeg

from pretrain import imagefolder
from pretrain.geometry import batch_windows
from pretrain.imagefolder import Images
from pretrain.levels import levels_of
from pretrain.views import View, crop_box, draw_pair, draw_view, render
from resim_bench.data import images
from resim_bench.harness import launch


@functools.cache  # a run asks twice, and ImageNet has a million files
def list_images(root: str, name: str) -> Images:
    """List an ImageFolder; the first process looks, the others are told.

    Args:
        root, name: see `imagefolder.read`.

    Raises:
        UserError: the folder is missing or empty, lacks a class of the list, or holds what cannot be used.
    """

    def read():
        found = imagefolder.read(root, name)
        found.survey.refuse()
        return found

    return launch.on_main_process(read)


def read_image(path: str | Path) -> Tensor:
    """Decode an image file to `(H, W, 3)` uint8, RGB, contiguous; EXIF's rotation is ignored, as MoCo's loader does.

    Raises:
        UserError: the file is no readable image.
    """
    with images.opened(path) as image:
        if image.format in ("JPEG", images.MPO):
            try:  # half the time that Pillow takes
                content = torch.from_numpy(np.fromfile(path, np.uint8))
                return decode_jpeg(content, mode=ImageReadMode.RGB).permute(1, 2, 0)
            except RuntimeError:  # a damaged one: Pillow reads it or says what is wrong
                pass
    return torch.from_numpy(images.decode(path))


class _Draws(Dataset):
    """Images whose random numbers are a function of (seed, draw); indexed by the `(draw, index)` of a DrawSampler.

    Args:
        root, name: see `list_images`.
        views: the recipe's `views`.
        seed: of the draws.
    """

    metainfo: dict = {}

    def __init__(self, root, name, views, seed):
        self.images = list_images(root, name)
        self.views, self.seed = views, seed

    def __len__(self):
        return len(self.images.names)

    def drawn(self, item: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """The image of a draw, `(H, W, 3)`, and what is drawn for each of its views."""
        draw, index = item
        image = read_image(self.images.path(index))
        height, width = image.shape[:2]
        return image, self._draw(np.random.default_rng((self.seed, draw)), width, height)

    def _draw(self, rng, width, height) -> tuple[View, ...]:
        raise NotImplementedError


@DATASETS.register_module()
class TwoViews(_Draws):
    """Query and key view of an image, `(S, S, 3)` uint8, with their crop boxes `(4,)`."""

    def _draw(self, rng, width, height):
        return draw_pair(rng, width, height, self.views)

    def __getitem__(self, item):
        image, (query, key) = self.drawn(item)
        return {
            "query": render(image, query, self.views),
            "key": render(image, key, self.views),
            "query_crop": crop_box(query),
            "key_crop": crop_box(key),
        }


@FUNCTIONS.register_module()
def collate_pairs(samples: list[dict], view_size: int, levels: dict, bn_group: int) -> dict:
    """A batch of `TwoViews`: `query` and `key (N, S, S, 3)`, and the `windows` of each level in place of the crops."""
    batch = default_collate(samples)
    crops = batch.pop("query_crop"), batch.pop("key_crop")
    windows = {source: batch_windows(*crops, view_size, level, bn_group) for source, level in levels_of(levels).items()}
    return batch | {"windows": windows}


@DATASETS.register_module()
class LabelledView(_Draws):
    """One view of an image, `(S, S, 3)` uint8, and its class number."""

    def _draw(self, rng, width, height):
        return (draw_view(rng, width, height, self.views),)

    def __getitem__(self, item):
        image, (view,) = self.drawn(item)
        return {"image": render(image, view, self.views), "label": self.images.labels[item[1]]}
