"""Images for pre-training: an ImageFolder, the 100 classes of IN-100 where they apply, two views a draw."""

import functools
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS, FUNCTIONS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from pretrain.geometry import batch_windows
from pretrain.views import crop_box, draw_pair, draw_view, render
from resim_bench.data import imagenet100
from resim_bench.errors import UserError

WNID = re.compile(r"n\d{8}")


@functools.cache  # a run asks twice, and ImageNet has a million files
def list_images(root: Path, name: str) -> tuple[list[Path], list[int], list[str]]:
    """List an ImageFolder.

    Args:
        root: a folder `<class>/…/<image>`, or one that holds such a folder as `train`.
        name: of the recipe's data set; `imagenet100` takes the 100 classes of the list where folders are wnids.

    Returns:
        Paths, the class number of each, and the class names, all sorted.

    Raises:
        UserError: the folder is missing or empty, or lacks a class of the list.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"there is no image folder {root}: put the training images there as {root.name}/<class>/<image>, "
            "or name their folder with --data (ImageNet: https://image-net.org/download, ILSVRC2012 train)"
        )
    root = root / "train" if (root / "train").is_dir() else root
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if name == "imagenet100" and any(WNID.fullmatch(c) for c in classes):
        missing = sorted(set(imagenet100()) - set(classes))
        if missing:
            raise UserError(f"{root} lacks {len(missing)} of the 100 classes of IN-100, first of them {missing[0]}")
        classes = sorted(imagenet100())
    paths, labels = [], []
    for label, c in enumerate(classes):
        found = sorted(p for p in (root / c).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise UserError(f"{root} holds no images: expected {root}/<class>/<image> with endings such as .jpg or .png")
    return paths, labels, classes


def read_image(path: Path) -> Tensor:
    """Decode an image file to `(H, W, 3)` uint8, RGB, contiguous; EXIF's rotation is ignored, as MoCo's loader does.

    Raises:
        UserError: the file is no readable image.
    """
    try:
        return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB).permute(1, 2, 0)
    except RuntimeError:  # no JPEG, whatever its name, or a damaged one: Pillow reads it or says what is wrong
        pass
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} is no readable image ({error}): restore or remove it") from None


class _Draws(Dataset):
    """Images whose random numbers are a function of (seed, draw); indexed by the `(draw, index)` of a DrawSampler.

    Args:
        root, name: see `list_images`.
        views: the recipe's `views`.
        seed: of the draws.
    """

    metainfo: dict = {}

    def __init__(self, root, name, views, seed):
        self.paths, self.labels, _ = list_images(root, name)
        self.views, self.seed = views, seed

    def __len__(self):
        return len(self.paths)

    def _open(self, item):
        draw, index = item
        image = read_image(self.paths[index])
        height, width = image.shape[:2]
        return image, width, height, np.random.default_rng((self.seed, draw))


@DATASETS.register_module()
class TwoViews(_Draws):
    """Query and key view of an image, `(S, S, 3)` uint8, with their crop boxes `(4,)`."""

    def __getitem__(self, item):
        image, width, height, rng = self._open(item)
        query, key = draw_pair(rng, width, height, self.views)
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
    windows = {source: batch_windows(*crops, view_size, level, bn_group) for source, level in levels.items()}
    return batch | {"windows": windows}


@DATASETS.register_module()
class LabelledView(_Draws):
    """One view of an image, `(S, S, 3)` uint8, and its class number."""

    def __getitem__(self, item):
        image, width, height, rng = self._open(item)
        view = draw_view(rng, width, height, self.views)
        return {"image": render(image, view, self.views), "label": self.labels[item[1]]}
