"""Is a run worth finishing? Cheap readings of the trunk's features while it trains, on a few annotated images.

Everything is read from the maps of the frozen trunk, in evaluation mode; nothing that training draws or keeps is
touched, so a monitored run ends with the same weights.
"""

import functools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image
from torch import Tensor

from pretrain.encoders import trunk_maps
from pretrain.geometry import correspond, windows
from pretrain.pooling import prroi_pool
from pretrain.views import crop_box, draw_pair, normalise, render
from resim_bench import files
from resim_bench.data.annotation import content_of, image_file, read_list, read_object, read_root
from resim_bench.data.images import decode
from resim_bench.errors import UserError
from resim_bench.harness import trace
from resim_bench.harness.launch import unwrapped

WINDOW, STRIDE = 3, 2  # cells of C4: the paper's W48-S32, whatever the recipe compares
NEIGHBOURS = 10
RIDGE = 1e-3  # of the features' variance
FARTHEST = 1e6  # pixels, of a corner of a box


def cell_labels(boxes: Tensor, labels: Tensor, cells: tuple[int, int], stride: float) -> Tensor:
    """The class of each cell of a map: that of the smallest box that holds it, 0 without one.

    Args:
        boxes: `(K, 4)` pixels; labels: `(K,)` classes from 1.
        cells: rows and columns; cell (i, j) sits at pixel (i stride, j stride).

    Returns:
        `(rows, columns)` int64.
    """
    y, x = (torch.arange(count) * stride for count in cells)
    found = torch.zeros(cells, dtype=torch.int64)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for k in sizes.argsort(descending=True):
        x0, y0, x1, y1 = boxes[k]
        found[((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))] = labels[k]
    return found


def readout(features: Tensor, labels: Tensor, held_out: Tensor) -> float:
    """Mean IoU, over the classes, of a linear readout fitted to the rest and read on what is held out.

    Ridge regression to one-hot classes, every class of the same weight.

    Args:
        features: `(N, D)`; labels: `(N,)` classes from 0; held_out: `(N,)` bool.
    """
    features = features.double()
    fitted = features[~held_out]
    features = (features - fitted.mean(0)) / fitted.std(0).clamp(min=1e-6)
    features = torch.cat((features, features.new_ones(len(features), 1)), dim=1)
    targets = F.one_hot(labels).double()
    weight = (1 / targets[~held_out].sum(0).clamp(min=1))[labels[~held_out], None]
    x, y = features[~held_out], targets[~held_out]
    gram = x.T @ (weight * x)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    said = (features[held_out] @ torch.linalg.solve(gram, x.T @ (weight * y))).argmax(1)
    said, truth = F.one_hot(said, targets.shape[1]).bool(), targets[held_out].bool()
    union = (said | truth).sum(0)
    return float(((said & truth).sum(0)[union > 0] / union[union > 0]).mean())


def knn(features: Tensor, labels: Tensor, images: Tensor) -> float:
    """Share of objects whose class most of their nearest neighbours in other images have.

    Args:
        features: `(N, D)`; labels: `(N,)` classes from 0; images: `(N,)`, which image each is from.
    """
    features = F.normalize(features, dim=1)
    similar = (features @ features.T).masked_fill(images[:, None] == images, -torch.inf)
    values, nearest = similar.topk(min(NEIGHBOURS, len(labels)), dim=1)
    votes = (F.one_hot(labels[nearest], int(labels.max()) + 1) * values.isfinite()[..., None]).sum(1)
    return float((votes.argmax(1) == labels).float().mean())


def spread(embeddings: Tensor) -> float:
    """How far unit-length embeddings `(N, D)` are from a collapse: 0 where all are alike, 1 all over the sphere."""
    return float((F.normalize(embeddings, dim=1).var(0, correction=0).sum()).sqrt())


def pooled_windows(query: Tensor, key: Tensor, query_crop: Tensor, key_crop: Tensor, view_size: int) -> tuple:
    """What `correspondence` takes: the features of windows of 3 x 3 cells, every second cell, in both views.

    Args:
        query, key: maps `(N, C, H, H)` of views of `view_size` pixels; query_crop, key_crop: `(N, 4)`.
    """
    stride = view_size / query.shape[-1]
    grid = windows(view_size, WINDOW * stride, STRIDE * stride)
    key_boxes, valid = correspond(grid, query_crop, key_crop, view_size)
    return prroi_pool(query, grid.expand_as(key_boxes), stride), prroi_pool(key, key_boxes, stride), valid


def correspondence(query: Tensor, key: Tensor, valid: Tensor) -> float:
    """Share of windows of the query view whose most similar window of the image's key view is the same place.

    Args:
        query, key: pooled features `(N, R, D)`; valid: `(N, R)` bool, other windows do not count.

    Returns:
        NaN where no window counts.
    """
    if not valid.any():
        return math.nan
    similar = F.normalize(query, dim=2) @ F.normalize(key, dim=2).transpose(1, 2)
    best = similar.masked_fill(~valid[:, None], -torch.inf).argmax(2)
    return float((best == torch.arange(valid.shape[1]))[valid].float().mean())


class Readings:
    """Annotated images, and two views of each, ready to be read.

    Args:
        data: a folder in VOC's format, or one that holds it as `VOCdevkit`; its VOC2007 trainval is used.
        images: how many, the first.
        size: their side in pixels, after scaling.
        views: the recipe's `views`; the flip is shared.

    Raises:
        UserError: there is no such folder, or a file in it cannot be used.
    """

    def __init__(self, data: str, images: int, size: int, views: dict):
        rng = np.random.default_rng(0)
        spec, names = views | {"flip": "shared"}, {}
        self.images, self.boxes, self.labels, pairs, crops = [], [], [], [], []
        for image, xml in annotated_files(Path(data))[:images]:
            pixels, objects = decode(image), _objects(xml)
            height, width = pixels.shape[:2]
            scale = torch.tensor([size / width, size / height]).repeat(2)
            self.boxes.append(scale * torch.tensor([box for _, box in objects]).reshape(-1, 4))
            labels = [names.setdefault(name, len(names) + 1) for name, _ in objects]
            self.labels.append(torch.tensor(labels, dtype=torch.int64))
            self.images.append(torch.from_numpy(np.array(Image.fromarray(pixels).resize((size, size)))))
            drawn = draw_pair(rng, width, height, spec)
            pairs.append([render(torch.from_numpy(pixels), view, spec) for view in drawn])
            crops.append([crop_box(view) for view in drawn])
        if not names:
            raise UserError(
                f"{data} has no object in its first {len(self.images)} images: annotate some, or name another"
            )
        self.query, self.key = map(torch.stack, zip(*pairs, strict=True))
        self.query_crop, self.key_crop = map(torch.stack, zip(*crops, strict=True))
        self.held_out = torch.arange(len(self.images)) % 2 == 1

    @torch.no_grad()
    def read(self, trunk: torch.nn.Module) -> dict[str, float]:
        """The readings of a trunk by name; its mode is as before afterwards."""
        training = trunk.training
        trunk.eval()
        try:
            maps, query, key = (_maps(trunk, images) for images in (torch.stack(self.images), self.query, self.key))
        finally:
            trunk.train(training)
        c4 = maps["c4"]
        stride = self.images[0].shape[0] / c4.shape[-1]
        labels = torch.stack(
            [cell_labels(b, k, c4.shape[-2:], stride) for b, k in zip(self.boxes, self.labels, strict=True)]
        )
        cells = c4.permute(0, 2, 3, 1)
        held_out = self.held_out[:, None, None].expand(labels.shape)
        objects = [prroi_pool(c4[i : i + 1], box[None], stride)[0] for i, box in enumerate(self.boxes)]
        counts = torch.tensor([len(b) for b in self.boxes])

        pooled = pooled_windows(query["c4"], key["c4"], self.query_crop, self.key_crop, self.query.shape[1])
        return {
            "cells": readout(cells.flatten(0, 2), labels.flatten(), held_out.flatten()),
            "knn": knn(
                torch.cat(objects), torch.cat(self.labels) - 1, torch.arange(len(counts)).repeat_interleave(counts)
            ),
            "correspondence": correspondence(*pooled),
            "spread": spread(maps["c5"].mean((2, 3))),
        }


def _maps(trunk: torch.nn.Module, images: Tensor, batch: int = 25) -> dict[str, Tensor]:
    device = next(trunk.parameters()).device
    parts = [trunk_maps(trunk, normalise(part.to(device))) for part in images.split(batch)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def annotated_files(data: Path) -> list[tuple[Path, Path]]:
    """The images of VOC2007's trainval, and the files that annotate them.

    Raises:
        UserError: there are no two, or one is missing.
    """
    year = next((inner for inner in (data / "VOC2007", data / "VOCdevkit" / "VOC2007") if inner.is_dir()), data)
    folder, file = year / "JPEGImages", year / "ImageSets" / "Main" / "trainval.txt"
    try:
        _, listed = read_list(file)
    except (OSError, ValueError):
        listed = []
    found = {}
    for name, stem, entries in listed:
        if not entries:
            raise UserError(f"{file} names '{name}', but there is no {folder / name}.jpg: restore it, or take it out")
        xml = year / "Annotations" / f"{stem}.xml"
        try:
            found[xml] = image_file(folder, entries, functools.partial(_filename, xml))
        except ValueError as error:
            raise UserError(f"{file} names '{name}': {error}") from None
    if len(found) < 2:  # one is read from, another is held out
        raise UserError(f"{data} is no VOCdevkit with two images in VOC2007's trainval: name one")
    return [(image, xml) for xml, image in found.items()]


def _filename(xml: Path) -> str:
    return content_of(_root(xml), "filename")


def _root(xml: Path):
    try:
        return read_root(files.read(xml))
    except FileNotFoundError:
        raise UserError(f"there is no annotation {xml}: restore it, or take its image out of the list") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{xml} is no annotation in VOC's format ({why}): repair it") from None


def _objects(xml: Path) -> list[tuple[str, tuple[float, ...]]]:
    """Name and continuous box of each object in a file of VOC's; boxes without area are left out, as in training."""
    try:
        objects = [read_object(node)[:2] for node in _root(xml).iterfind("object")]
    except ValueError as error:
        raise UserError(f"{xml} is no annotation in VOC's format ({error}): repair it") from None
    for name, box in objects:
        if not all(-FARTHEST < corner < FARTHEST for corner in box):
            raise UserError(f"{xml} has {name} in a box that is none: correct it")
    return [(name, (x0, y0, x1, y1)) for name, (x0, y0, x1, y1) in objects if x0 < x1 and y0 < y1]


@HOOKS.register_module()
class MonitorHook(Hook):
    """Reads the trunk before the first iteration, every `every` epochs and at the end: a line said, and kept in
    `trace.MONITOR`.

    Beside the readings stand the mean losses since the reading before.

    Args:
        every: epochs; epoch_iters: iterations of one.
        data, images, size, views: of `Readings`.
    """

    priority = "LOW"  # after the step has been logged

    def __init__(self, every: int, epoch_iters: int, **readings):
        self.interval = every * epoch_iters
        try:
            self.readings = Readings(**readings)
        except UserError as error:
            raise UserError(f"monitor.data: {error}, or set monitor.every=0") from None
        self.losses: dict[str, Tensor] = {}  # added up since the reading before
        self.since = 0

    def before_train(self, runner):
        """Forget the readings after the point where training goes on; read what it starts from."""
        file = Path(runner.work_dir, trace.MONITOR)
        if is_main_process() and file.exists():
            kept = [json.dumps(line) + "\n" for line in trace.lines(file) if 0 < runner.iter >= line["iter"]]
            with files.replacing(file) as stream:
                stream.write("".join(kept).encode())
        if runner.iter == 0:
            self._read(runner, 0)

    def before_save_checkpoint(self, runner, checkpoint):
        """The losses added up so far go on with a run that continues."""
        checkpoint["monitor"] = {"losses": self.losses, "since": self.since}

    def after_load_checkpoint(self, runner, checkpoint):
        """As above."""
        kept = checkpoint.get("monitor", {"losses": {}, "since": 0})
        self.losses, self.since = dict(kept["losses"]), kept["since"]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Read when an interval is over."""
        for name, value in outputs.items():
            if name.startswith("loss_"):
                self.losses[name] = self.losses.get(name, 0.0) + value.detach()
        self.since += 1
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._read(runner, done)
            self.losses, self.since = {}, 0

    def _read(self, runner, done: int) -> None:
        losses = {name: value / self.since for name, value in self.losses.items()}
        for value in losses.values():
            all_reduce(value, "mean")  # of all processes, as the log's are
        if not is_main_process():
            return
        started = time.perf_counter()
        model = unwrapped(runner.model)
        found = self.readings.read(model.trunk) | {name: float(value) for name, value in losses.items()}
        seconds = time.perf_counter() - started
        said = "  ".join(f"{name}: {value:.3f}" for name, value in found.items())
        print(f"  Monitor [{done}/{runner.max_iters}]  {said}  time: {seconds:.1f} s", flush=True)
        with open(Path(runner.work_dir, trace.MONITOR), "a") as file:
            file.write(json.dumps({"iter": done} | found | {"seconds": seconds}) + "\n")
