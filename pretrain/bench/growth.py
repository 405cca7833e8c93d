"""How the cost of a step, of draws and of a folder's survey grows with the work, for `resim-bench bench growth`.

What is linear by its definition has to be so in seconds, from a mini run to ImageNet. The loss among windows compares
each of a batch with each, and is quadratic in them; what begins at a draw does not depend on which it is.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from pretrain import geometry, imagefolder
from pretrain.bench.ops import TAU
from pretrain.bench.step import DEVICE, RESIM_C4
from pretrain.levels import levels_of
from pretrain.pooling import prroi_pool
from pretrain.regions import region_loss
from pretrain.train import load_recipe
from pretrain.views import crop_box, draw_pair
from resim_bench.data import memory
from resim_bench.harness import runner
from resim_bench.harness.draws import DrawSampler
from resim_bench.machine.timing import Growth, grow, one_thread

BATCHES = (16, 32, 64, 128, 256)
STRIDES = {16: 48, 36: 32, 64: 22, 169: 14}  # of windows of 48 px, by how many of them a view of 224 px has
BATCH, WINDOWS = 64, 36  # where the other grows
CHANNELS, GROUP, CELLS = 32, 16, 12 * 12  # dense negatives are 12 x 12 cells of each image of a group
FILES = (1_000, 10_000, 100_000)
IMAGES = (*FILES, 1_281_167)  # the last is ImageNet
EPOCHS = (1, 10, 200)


def rows(rounds: int = 3) -> Iterator[Growth]:
    """The rows, as they come."""
    runner.keep_freed_memory()  # as a training does
    torch.manual_seed(0)

    def row(what, make, sizes, of, expected=1):
        return grow(what, make, tuple(sizes), of, expected, rounds)

    with one_thread(), tempfile.TemporaryDirectory() as folder:
        yield row("pooling", pooling, BATCHES, "images")
        yield row("region loss among windows", loss, BATCHES, "images", expected=2)
        yield row("region loss, dense in groups", dense_loss, BATCHES, "images")
        yield row("pooling", partial(pooling, BATCH), STRIDES, "windows a view")
        yield row("region loss among windows", partial(loss, BATCH), STRIDES, "windows", expected=2)
        yield row("region loss, dense in groups", partial(dense_loss, BATCH), STRIDES, "windows")
        yield row("windows on the host", partial(finding_windows, BATCHES[-1]), STRIDES, "windows a view")
        yield row("draws of an epoch", epoch, IMAGES, "images")
        yield row("continuing a run", continuing, EPOCHS, "epochs in", expected=0)
        yield row("two crops", crops, (200 * images for images in IMAGES), "draws in", expected=0)
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=os.devnull):  # nothing is remembered
            yield row("survey of a folder", partial(survey, Path(folder)), FILES, "files")
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
            yield row("survey as remembered", partial(remembered, Path(folder)), IMAGES, "images")


def finding_windows(images: int, windows: int = WINDOWS) -> Callable[[], geometry.Windows]:
    """The windows of a batch of pairs of 500 x 375 photographs, as the loader finds them."""
    recipe = load_recipe(RESIM_C4, {"model.levels.c4.stride": STRIDES[windows]})
    level = levels_of(recipe.model.levels.to_dict())["c4"]
    rng = np.random.default_rng(0)
    pairs = [draw_pair(rng, 500, 375, recipe.views) for _ in range(images)]
    crops = [torch.stack([crop_box(pair[view]) for pair in pairs]) for view in (0, 1)]
    return lambda: geometry.batch_windows(*crops, recipe.views.size, level, GROUP)


def pooling(images: int, windows: int = WINDOWS) -> Callable[[], None]:
    """Forward and backward, on C4."""
    boxes = finding_windows(images, windows)().query_boxes.to(DEVICE)
    features = torch.randn(images, CHANNELS, 14, 14, device=DEVICE, requires_grad=True)
    return lambda: prroi_pool(features, boxes, 16).sum().backward()


def loss(images: int, windows: int = WINDOWS, cells: int = 0) -> Callable[[], None]:
    """Forward and backward; with the valid windows of the batch as negatives, or with so many cells of a group."""
    _, _, valid, rows_of_groups = finding_windows(images, windows)()
    query = torch.randn(images, windows, CHANNELS, device=DEVICE, requires_grad=True)
    key, valid, rows_of_groups = torch.randn_like(query), valid.to(DEVICE), [part.to(DEVICE) for part in rows_of_groups]
    negatives = torch.randn(images // GROUP, cells, CHANNELS, device=DEVICE) if cells else None
    return lambda: region_loss(query, key, valid, TAU, negatives, "image", rows_of_groups)[0].backward()


def dense_loss(images: int, windows: int = WINDOWS) -> Callable[[], None]:
    """With every position of a group's key maps as negatives, as the release has them."""
    return loss(images, windows, GROUP * CELLS)


def epoch(images: int) -> Callable[[], None]:
    """Every draw of an epoch."""
    sampler = DrawSampler(range(images), seed=0, batch_size=GROUP)

    def work():
        for _ in zip(range(images), sampler):  # noqa: B905 (the sampler has no end)
            pass

    return work


def continuing(epochs: int) -> Callable[[], object]:
    """The first draw of a run that goes on."""
    sampler = DrawSampler(range(FILES[-1]), seed=0, batch_size=GROUP)
    sampler.skip(epochs * len(sampler))
    return lambda: next(iter(sampler))


def crops(draws: int) -> Callable[[], object]:
    """Of a hundred pairs."""
    views = load_recipe(RESIM_C4).views
    return lambda: [draw_pair(np.random.default_rng((0, draws + i)), 500, 375, views) for i in range(100)]


def survey(folder: Path, files: int) -> Callable[[], None]:
    """Of as many names of an empty file, a thousand a class."""
    root = folder / f"files-{files}"
    for name, (first, *others) in listing(files).items():
        (root / name).mkdir(parents=True)
        (root / name / first).touch()
        for image in others:
            os.link(root / name / first, root / name / image)  # a file of its own takes much longer to make
    return partial(read, root, files)


def remembered(folder: Path, images: int) -> Callable[[], None]:
    """Of folders alone: which images they have is remembered."""
    root, classes = folder / f"remembered-{images}", listing(images)
    for name in classes:
        (root / name).mkdir(parents=True)
    contents = {"": [[], list(classes), []]} | {name: [names, [], []] for name, names in classes.items()}
    for name in contents:
        os.utime(root / name, (0, 0))  # long unchanged
    memory.remember(
        "imagefolder",
        root,
        {name: [os.stat(root / name).st_ino, 0, *content] for name, content in contents.items()},
    )
    return partial(read, root, images)


def listing(images: int) -> dict[str, list[str]]:
    """Names by class, a thousand each."""
    classes = images // 1000
    return {f"n{c:08}": [f"n{c:08}_{i}.JPEG" for i in range(c, images, classes)] for c in range(classes)}


def read(root: Path, images: int) -> None:
    """What a run begins with.

    Raises:
        RuntimeError: there are not as many images.
    """
    found = imagefolder.read(root)
    if len(found.names) != images:
        raise RuntimeError(f"{found.survey.line()}, not {images:,}")
    found.facts()
