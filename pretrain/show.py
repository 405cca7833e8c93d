"""Pictures: what a pre-training sees, what a backbone takes for the same place, what an ImageFolder holds."""

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from pretrain import methods, monitor, train
from pretrain.data import TwoViews, list_images, read_image
from pretrain.encoders import load_trunk, trunk_maps
from pretrain.geometry import Windows, correspond
from pretrain.levels import Level, levels_of
from pretrain.views import View, normalise
from resim_bench import drawing, experiments
from resim_bench.drawing import Mark, Panel, Sheet
from resim_bench.errors import UserError
from resim_bench.harness.draws import DrawSampler

VIEW = 448  # px that a view is drawn at: twice 224, eight times mini's 56
CROPS = ("query", drawing.ORANGE, "solid"), ("key", drawing.SKY, "dashed")
DISJOINT = drawing.YELLOW, drawing.SKY, drawing.VERMILLION, drawing.GREEN  # of neighbours; what has one is apart
USUAL = "in1k-moco-v2-200ep"  # whose views and images a backbone from elsewhere gets
CELL = 300, 220  # px of an image of a folder
CELLS = 6  # of a query view that are looked for


def training(pretrain_id: str, data: Path | None = None, count: int = 4) -> Sheet:
    """The first samples of iteration 1 with seed 0, before normalisation, beside the images that they are cut from.

    A row for each level of ReSim: its windows in the query view and where they lie in the key view.

    Args:
        data: the ImageFolder; by default the recipe's.
        count: samples, as many as a batch has at most.

    Raises:
        UserError: no such recipe or folder, images that do not suit it, or a recipe that needs none.
    """
    recipe = train.load_recipe(pretrain_id, {"workers": 0})
    if not methods.of(recipe).sees_images(recipe):
        raise UserError(f"{pretrain_id} sees no images: show one that trains, or its backbone by its file")
    root = str(data or recipe.dataset.root)
    images = list_images(root, recipe.dataset.name)
    train.check(recipe, len(images.names), world_size=1)
    loader = _loader(recipe, root, len(images.names))
    items = list(itertools.islice(loader.sampler, min(count, recipe.batch)))
    batch = loader.collate_fn([loader.dataset[item] for item in items])
    rows = [row for place, item in enumerate(items) for row in _sample(loader.dataset, item, batch, place, recipe)]
    heading = [
        f"{experiments.recipe_id(pretrain_id)}, seed 0: {len(items)} of the {recipe.batch} samples of iteration 1, as "
        f"the network gets them but for normalisation. {len(images.names):,} images of {images.folder}"
    ]
    levels = recipe.model.get("levels", {})
    return Sheet(heading + [_explained(*item) for item in levels_of(levels).items()], rows, (VIEW, VIEW))


def _loader(recipe: Config, root: str, images: int):
    """What makes the batches of a training; whoever calibrates gets the same."""
    samples = dict(
        type=methods.of(recipe).samples,
        root=root,
        name=recipe.dataset.name,
        views=recipe.views.to_dict(),
        seed=0,
    )
    return Runner.build_dataloader(train.runner_config(recipe, samples, images, world_size=1).train_dataloader, seed=0)


def _explained(source: str, level: Level) -> str:
    if level.anchor == "view":
        return f"{source}: one window, the whole of each view."
    step = _step(level)
    drawn = f", of which one in {step} of a row and column is drawn" if step > 1 else ""
    permuted = " It is compared with another of its image at random." if level.positives == "permuted" else ""
    return (
        f"{source}: windows of {level.window} px every {level.stride} px from the corner of the {level.anchor}{drawn}. "
        f"What has one number and colour is one place; thin dashed windows leave a view and do not count.{permuted}"
    )


def _sample(dataset, item: tuple[int, int], batch: dict, place: int, recipe: Config) -> Iterator[list[Panel]]:
    """The rows of a sample: one, or one for each level."""
    image, views = dataset.drawn(item)
    names = [name for name, *_ in CROPS][: len(views)]
    title = f"{place + 1}: {shown_name(dataset.images, item[1])}, {image.shape[1]} × {image.shape[0]} px"
    whole = Panel(image.numpy(), title, _crops(views, image.shape[1]))
    given = [batch[name if len(views) > 1 else "image"][place].numpy() for name in names]
    titles = [f"{name}: {_drawn(view, recipe.views)}" for name, view in zip(names, views, strict=True)]
    if len(views) == 1:
        titles = [f"{titles[0].removeprefix('query: ')}; class {dataset.images.classes[batch['label'][place]]}"]
    for source, level in levels_of(recipe.model.get("levels", {})).items():
        marks = window_marks(batch["windows"][source], place, level)
        valid = batch["windows"][source].valid[place]
        said = f"; {source}: {int(valid.sum())} of {len(valid)} windows count"
        yield [whole, *(Panel(*of_view) for of_view in zip(given, [titles[0] + said, titles[1]], marks, strict=True))]
    if not batch.get("windows"):
        yield [whole, *itertools.starmap(Panel, zip(given, titles, strict=True))]


def shown_name(images, index: int) -> str:
    """The name of an image in its folder."""
    return os.path.relpath(images.path(index), images.folder)


def _crops(views: tuple[View, ...], width: int) -> list[Mark]:
    """The crops of views in the image as it is read: those of a mirrored one are taken back."""
    marks = []
    for (name, colour, line), view in zip(CROPS, views, strict=False):
        left, top, right, bottom = view.crop
        if view.flip:
            left, right = width - right, width - left
        text = (name if len(views) > 1 else "crop") + ", mirrored" * view.flip
        marks.append(Mark((left, top, right, bottom), text, colour, line))
    return marks


def _drawn(view: View, spec: dict) -> str:
    """What is done to a view, in its order."""
    steps = {
        "jitter": "colours jittered" * bool(view.jitter),
        "grayscale": "grey" * view.grayscale,
        "blur": f"blurred by {view.blur_sigma:.2g} px" if view.blur_sigma is not None else "",
    }
    return ", ".join(filter(None, ["mirrored" * view.flip, *(steps[name] for name in spec["photometric"])])) or "as cut"


def _step(level: Level) -> int:
    """Of how many windows in a row one is drawn, so that no more than two lie over each other."""
    return max(1, math.ceil(level.window / (2 * level.stride))) if level.anchor != "view" else 1


def window_marks(windows: Windows, place: int, level: Level) -> tuple[list[Mark], list[Mark]]:
    """The windows of one pair in the query view and in the key view; those that do not count in the first alone."""
    query, key = windows.query_boxes[place].tolist(), windows.key_boxes[place].tolist()
    valid, side, step = windows.valid[place].tolist(), math.isqrt(len(query)), _step(level)
    marks: tuple[list[Mark], list[Mark]] = ([], [])
    for number in range(len(query)):
        row, column = divmod(number, side)
        if row % step or column % step:
            continue
        colour = DISJOINT[row // step % 2 * 2 + column // step % 2]
        if valid[number]:
            for of_view, box in zip(marks, (query[number], key[number]), strict=True):
                of_view.append(Mark(box, str(number), colour, width=2, inside=True))
        else:
            marks[0].insert(0, Mark(query[number], "", drawing.GREY, "dashed", width=1))
    return marks


def backbone(file: Path, data: Path | None = None, count: int = 1) -> Sheet:
    """What a trunk takes for the same place in two views of an image: similarities of C4 from a few cells.

    The views are those of the backbone's recipe under one flip, of the first draws of seed 0 that share a place.

    Args:
        data: an ImageFolder; by default that of the recipe, or ImageNet's.
        count: pairs.

    Raises:
        UserError: no such backbone or folder, or no pair that shares a place.
    """
    trunk, provenance = load_trunk(file)
    of_data, views = seen_by(provenance)
    dataset = TwoViews(str(data or of_data.root), of_data.name, views, seed=0)
    draws = itertools.islice(DrawSampler(dataset, seed=0, batch_size=1), count + 100)
    pairs = ((item, Places(trunk.eval(), dataset[item])) for item in draws)
    shared = itertools.islice((pair for pair in pairs if pair[1].valid.any()), count)
    titled = ((f"{draw + 1}: {shown_name(dataset.images, index)}", places) for (draw, index), places in shared)
    rows = [row for title, places in titled for row in drawing.in_rows(places.panels(title), (VIEW, VIEW))]
    if not rows:
        raise UserError(f"no pair of views of {dataset.images.folder} shares a place: give larger images by --data")
    heading = [
        f"{provenance.get('id', file)}, seed {provenance.get('seed', 0)}: how similar (cosine) each cell of C4 in the "
        f"key view is to one of the query view. Images of {dataset.images.folder}",
        f"Outlined is the true place, {monitor.WINDOW} × {monitor.WINDOW} cells of the query view; the dot is the most "
        "similar cell, which is right inside of the outline. Light is similar; each map has its own scale.",
    ]
    return Sheet(heading, rows, (VIEW, VIEW))


def seen_by(provenance: dict) -> tuple[Config, dict]:
    """The data set of a backbone's recipe, or ImageNet, and the views that it was trained on, under one flip."""
    known = experiments.of_recipe(provenance.get("id", ""))
    recipe = train.load_recipe(known if known in experiments.pretrain_ids() else USUAL)
    return recipe.dataset, provenance.get("protocol", {}).get("views", recipe.views.to_dict()) | {"flip": "shared"}


class Places:
    """The cells of a query view's C4, where they lie in the key view, and what is most similar there.

    Attributes:
        similar: `(n, n)` cosine of each cell of the query view with each of the key view.
        query_boxes, key_boxes: `(n, 4)`, the window around each cell and the same place in the key view.
        valid: `(n,)` whether both lie in their views.
        inside: `(n, n)` whether each cell of the key view lies in the true place of each of the query view.
        best, right: `(n,)` the most similar cell of the key view, and whether it lies in the true place.
    """

    @torch.no_grad()
    def __init__(self, trunk: torch.nn.Module, pair: dict):
        self.views = pair["query"], pair["key"]
        self.size = len(pair["query"])
        query, key = trunk_maps(trunk, normalise(torch.stack(self.views)))["c4"]
        self.stride = self.size / query.shape[-1]
        crops = pair["query_crop"][None], pair["key_crop"][None]
        self.reading = monitor.pooled_windows(query[None], key[None], *crops, self.size)
        self.similar = F.normalize(query.flatten(1), dim=0).T @ F.normalize(key.flatten(1), dim=0)
        self.cells = cells(query.shape[-1], self.stride)
        self.query_boxes = around(self.cells, self.stride)
        (self.key_boxes,), (self.valid,) = correspond(self.query_boxes, *crops, self.size)
        below, above = self.key_boxes[:, None, :2] <= self.cells, self.cells <= self.key_boxes[:, None, 2:]
        self.inside = (below & above).all(2)
        self.best = self.similar.argmax(1)
        self.right = self.inside.gather(1, self.best[:, None])[:, 0]

    def panels(self, title: str) -> list[Panel]:
        """Both views, and the map of a few cells."""
        valid = self.valid.nonzero()[:, 0]
        chosen = valid[apart(self.cells[valid], CELLS)].tolist()
        colours = [drawing.numbered(place) for place in range(len(chosen))]
        marks = [
            [
                Mark(boxes[cell].tolist(), str(place + 1), colour)
                for place, (cell, colour) in enumerate(zip(chosen, colours, strict=True))
            ]
            for boxes in (self.query_boxes, self.key_boxes)
        ]
        windows = int(self.reading[2].sum())
        monitored = f"; the monitor's correspondence: {monitor.correspondence(*self.reading):.2f}, of {windows} windows"
        said = f"key: right for {int(self.right[valid].sum())} of the {len(valid)} cells that have a place here"
        query, key = (view.numpy() for view in self.views)
        heats = [self._heat(cell, place + 1, colours[place]) for place, cell in enumerate(chosen)]
        return [
            Panel(query, f"{title}; query", marks[0]),
            Panel(key, said + (monitored if windows else ""), marks[1]),
            *heats,
        ]

    def _heat(self, cell: int, number: int, colour) -> Panel:
        side = math.isqrt(len(self.cells))
        values = self.similar[cell].reshape(side, side).numpy()
        grey = self.views[1].numpy().mean(axis=2, keepdims=True)
        coloured = drawing.heat(values, self.stride, self.size)
        x, y = self.cells[self.best[cell]].tolist()
        dot = self.size / 75
        marks = [
            Mark(self.key_boxes[cell].tolist(), str(number), colour),
            Mark((x - dot, y - dot, x + dot, y + dot), "", drawing.WHITE, width=2),
        ]
        title = f"{number}: {'right' if self.right[cell] else 'wrong'}, from {values.min():.2f} to {values.max():.2f}"
        return Panel((0.75 * coloured + 0.25 * grey).astype(np.uint8), title, marks)


def cells(side: int, stride: float) -> Tensor:
    """Where the cells of a square map sit, `(side², 2)` x and y in pixels, row by row."""
    y, x = torch.meshgrid(*[torch.arange(side) * stride] * 2, indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def around(cells: Tensor, stride: float) -> Tensor:
    """The windows `(n, 4)` that are looked for: the monitor's, around each cell."""
    reach = monitor.WINDOW * stride / 2
    return torch.cat((cells - reach, cells + reach), dim=1)


def apart(places: Tensor, wanted: int) -> list[int]:
    """Numbers of `wanted` places `(n, 2)` that are far from each other, ascending; all, where there are no more."""
    chosen = [0]
    while len(chosen) < min(wanted, len(places)):
        chosen.append(int(torch.cdist(places, places[chosen]).amin(1).argmax()))
    return sorted(chosen)


def folder(root: Path, count: int = 24) -> Sheet:
    """Images of an ImageFolder from its beginning to its end, with their classes.

    Raises:
        UserError: it cannot be used.
    """
    images = list_images(str(root), "")
    panels = [
        Panel(
            read_image(images.path(index)).numpy(),
            f"{images.classes[images.labels[index]]}: {os.path.basename(images.names[index])}",
        )
        for index in drawing.spread(len(images.names), count)
    ]
    return Sheet([images.survey.line()], drawing.in_rows(panels, CELL), CELL)
