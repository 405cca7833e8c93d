"""Pictures: what a detector trains on, what a test found and missed, what a folder of annotated images says."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from pycocotools import mask as run_length

from resim_bench import drawing, experiments
from resim_bench.data import images as image_files
from resim_bench.drawing import Mark, Panel, Sheet
from resim_bench.errors import UserError
from transfer import errors, protocols
from transfer.coco import COCOFolder
from transfer.datasets import DetectionFolder, Split
from transfer.detections import Detections, Found, Images
from transfer.masks import as_coco, code_of
from transfer.score import opened
from transfer.voc import VOCFolder

IOU, BACKGROUND = 0.5, 0.1  # what `errors.judge` goes by
SCORE, BEST = 0.5, 10
CELL = 640, 400
RESULT = 660, 480
TRUE, FALSE = (drawing.SKY, "solid"), (drawing.VERMILLION, "dashed")
MISSED, IGNORED = (drawing.YELLOW, "dotted"), (drawing.GREY, "dotted")
LAYOUTS = {"voc": VOCFolder, "coco": COCOFolder}
KINDS = {number: name for name, number in errors.KINDS.items()}


def training(transfer_id: str, data: Path | None = None, count: int = 5) -> Sheet:
    """The first images of iteration 1 with seed 0, padded to the batch of one process, and the first test image.

    Args:
        data: the data set's folder; by default the protocol's.
        count: images of the batch.

    Raises:
        UserError: no such protocol or folder, or what it holds cannot be used.
    """
    cfg = protocols.load(transfer_id)
    layout = protocols.data_set(cfg)
    root = layout.find(data or cfg.data_root)
    classes = layout.facts(root, cfg.classes, protocols.has_masks(cfg), cfg.fraction)["classes"]
    cfg.train_dataloader.num_workers = 0
    resolved = protocols.resolve(cfg, data=root, classes=classes, seed=0, backbone=None)
    with DefaultScope.overwrite_default_scope("mmdet"):
        loader = Runner.build_dataloader(resolved.train_dataloader, seed=0)
        test = DATASETS.build(resolved.test_dataloader.dataset)
        prepare = MODELS.build(resolved.model.data_preprocessor)
    items = itertools.islice(loader.sampler, cfg.total_batch)
    batch = prepare(loader.collate_fn([loader.dataset[item] for item in items]), training=True)
    pairs = itertools.islice(zip(batch["inputs"], batch["data_samples"], strict=True), count)
    panels = [
        Panel(_pixels(image, prepare), f"{place}: {_seen(sample)}", trained_marks(sample, classes))
        for place, (image, sample) in enumerate(pairs, 1)
    ]
    tested = prepare(pseudo_collate([test[0]]))
    sample, (height, width) = tested["data_samples"][0], batch["inputs"].shape[-2:]
    high, wide = sample.img_shape
    image = _pixels(tested["inputs"][0, :, :high, :wide], prepare)
    heading = [
        f"{transfer_id}, seed 0: {len(panels)} of the {cfg.total_batch} images of iteration 1 and the first test "
        f"image, as the network gets them but for normalisation. Images of {root}",
        f"The batch is padded to {width} × {height} px: where an image ends, it is grey.",
    ]
    panels.append(Panel(image, f"test: {_seen(sample)}", tested_marks(test, sample, 0)))
    return Sheet(heading, drawing.in_rows(panels, CELL), CELL)


def _pixels(image: torch.Tensor, prepare) -> np.ndarray:
    """An image as it was before it was normalised, `(H, W, 3)` uint8 RGB."""
    whole = image.float() * prepare.std + prepare.mean
    return whole.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _seen(sample) -> str:
    """What became of an image's size, and whether it was mirrored."""
    (height, width), (high, wide) = sample.ori_shape[:2], sample.img_shape[:2]
    mirrored = ", mirrored" * bool(sample.metainfo.get("flip"))
    return f"{os.path.basename(sample.img_path)}, {width} × {height} → {wide} × {high} px{mirrored}"


def trained_marks(sample, classes: Sequence[str]) -> list[Mark]:
    """What a training image is to teach, as the detector gets it."""
    found = sample.gt_instances
    masks = found.masks.to_ndarray().astype(bool) if "masks" in found else [None] * len(found)
    return [
        Mark(box, classes[label], drawing.numbered(label), mask=mask)
        for box, label, mask in zip(found.bboxes.tolist(), found.labels.tolist(), masks, strict=True)
    ]


def tested_marks(test: DetectionFolder, sample, index: int) -> list[Mark]:
    """What there is to find in a test image, as large as the detector gets it."""
    wide, high = sample.scale_factor
    marks = _annotated(test.reading, test.data_list[index])
    return [mark._replace(box=np.multiply(mark.box, (wide, high) * 2)) for mark in marks]


def _annotated(split: Split, i: int) -> list[Mark]:
    """What is annotated in an image of a split."""
    size = split.sizes[i, ::-1].tolist()
    marks = []
    for k in range(split.first[i], split.first[i + 1]):
        label = split.labels[k]
        text, line = split.classes[label], "solid"
        if split.ignored[k]:
            text, line = f"{text}, ignored in the test", "dotted"
        if not split.trains[k]:
            text, line = f"{split.classes[label]}, left out", "dashed"
        outline = split.masks[k] if split.masks else None
        mask = _mask(code_of(outline, size), size) if outline else None
        marks.append(Mark(split.boxes[k].tolist(), text, drawing.numbered(label), line, mask=mask))
    return marks


def _mask(code: bytes, size: Sequence[int]) -> np.ndarray:
    return run_length.decode(as_coco(code, size)).astype(bool)


def folder(layout: str, root: Path, count: int = 9) -> Sheet:
    """Images of either split from its beginning to its end, with what is annotated in them, as it is read.

    Args:
        layout: of `LAYOUTS`.
        count: images of each split.

    Raises:
        UserError: the folder cannot be used.
    """
    found = LAYOUTS[layout].find(root)
    for survey in LAYOUTS[layout].surveys(found):
        survey.refuse()
    splits = LAYOUTS[layout].splits(found)
    panels = [
        Panel(
            image_files.decode(split.path(i), exif=bool(split.exif[i])),
            f"{name}: {os.path.basename(split.names[i])}",
            _annotated(split, i),
        )
        for name, split in zip(("train", "test"), splits, strict=True)
        for i in drawing.spread(len(split.names), count)
    ]
    return Sheet([split.survey.line() for split in splits], drawing.in_rows(panels, CELL), CELL)


def result(file: Path, data: Path | None = None, count: int = 6) -> Sheet:
    """Test images from the first to the last with what was to be found and what was: true, false and missed.

    Each image is there twice: with what has a score of `SCORE` or more, and with the `BEST` best.

    Args:
        file: a record, or its detections.
        data: the data set's folder; by default that of the record's protocol. Where an image is not found, it is a
            plain frame of its size.
        count: images.

    Raises:
        UserError: no such record, it has no detections, or there is no data set in `data`.
    """
    detections, entry, what = opened(Path(file))
    detections = detections._replace(found=errors.in_order(detections.found))
    split, names = tested(detections.metric.get("type"), entry["transfer"]["id"] if entry else "", data)
    rows = []
    for number in drawing.spread(len(detections.images.ids), count):
        image, title = _image(detections.images, number, split, names)
        wanted, good = judged_marks(detections, number, least=SCORE)
        of_all, best = judged_marks(detections, number, most=BEST)
        ranked = [mark._replace(text=str(rank)) for rank, mark in enumerate(best, 1)]
        said = [f"{rank} {mark.text}" for rank, mark in enumerate(best, 1)]
        rows.append(
            [  # the best lies on top
                Panel(image, f"{title}; score ≥ {SCORE}", wanted + good[::-1]),
                Panel(image, f"the {BEST} best", of_all + ranked[::-1], said or ["nothing found"]),
            ]
        )
    heading = [
        f"{what}: {len(rows)} of {len(detections.images.ids):,} test images. Numbers are scores.",
        f"Solid: true, with an IoU of {IOU} or more with an object of its class that nothing better has; the object is "
        "thin and white. Dashed: false, and why (docs/errors.md). Dotted: missed, or ignored.",
    ]
    return Sheet(heading, rows, RESULT)


def judged_marks(
    detections: Detections, image: int, least: float = 0.0, most: int | None = None
) -> tuple[list[Mark], list[Mark]]:
    """What was to be found in an image, and what was, by falling score: of a score `least` or more, or the `most` best.

    Args:
        detections: as `errors.in_order` leaves them.
    """
    truth, found, classes = detections.truth, detections.found, detections.classes
    rows = np.flatnonzero((found.image == image) & (found.score >= least))[:most]
    codes = None if found.mask is None else [found.mask[row] for row in rows]
    found = Found(*(column[rows] for column in found[:4]), codes)
    kinds, targets, ignored = errors.judge(detections._replace(found=found), IOU, BACKGROUND, masks=False)
    right = kinds == errors.RIGHT
    wanted, marks = [], []
    for k in np.flatnonzero(truth.image == image).tolist():
        name, box = classes[truth.label[k]], truth.box[k].tolist()
        if truth.ignored[k]:
            wanted.append(Mark(box, f"ignored: {name}", *IGNORED))
        elif k in targets[right]:
            wanted.append(Mark(box, width=1))
        else:
            wanted.append(Mark(box, f"missed: {name}", *MISSED))
    for k in range(len(rows)):
        said, style = ("true", TRUE) if right[k] else ("ignored", IGNORED) if ignored[k] else ("false", FALSE)
        why = f", {KINDS[kinds[k]]}" if said == "false" else ""
        mask = None if codes is None else _mask(codes[k], detections.images.sizes[image].tolist())
        text = f"{said}: {classes[found.label[k]]} {found.score[k]:.2f}{why}"
        marks.append(Mark(found.box[k].tolist(), text, *style, mask=mask))
    return wanted, marks


def tested(metric: str, transfer_id: str, data: Path | None) -> tuple[Split | None, dict]:
    """The split that was tested and the numbers of its images by name; none where it cannot be found.

    Args:
        metric: that tests it, which tells the layout where no protocol has this id.
        data: its folder; by default that of the protocol.

    Raises:
        UserError: there is no such data set in `data`.
    """
    layout, place = {layout.metric: layout for layout in LAYOUTS.values()}.get(metric), data
    if transfer_id in experiments.transfer_ids():
        cfg = protocols.load(transfer_id)
        layout, place = protocols.data_set(cfg), data or cfg.data_root
    if layout and place:
        try:
            split = layout.read_once(layout.find(place), "test")
            split.survey.refuse()
            return split, {name: i for i, name in enumerate(layout.result_names(split))}
        except UserError:
            if data:
                raise
    return None, {}


def pixels_of(images: Images, number: int, split: Split, names: dict) -> np.ndarray | None:
    """The pixels of a tested image, `(H, W, 3)` uint8 RGB; None where a split has none of its name and size.

    Raises:
        UserError: it cannot be read.
    """
    i = names.get(images.ids[number])
    if i is None or split.sizes[i, ::-1].tolist() != images.sizes[number].tolist():
        return None
    return image_files.decode(split.path(i), exif=bool(split.exif[i]))


def _image(images: Images, number: int, split: Split | None, names: dict) -> tuple[np.ndarray, str]:
    """The pixels of a tested image, and its title; a plain frame where there is none."""
    name, (height, width) = images.ids[number], images.sizes[number].tolist()
    pixels = pixels_of(images, number, split, names) if split else None
    if pixels is None:
        return np.full((height, width, 3), 60, np.uint8), f"{name}, {width} × {height} px, image not found"
    return pixels, str(name)
