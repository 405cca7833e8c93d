"""What a test found beside what there was to find: enough to measure it again without detector, data or GPU.

A file of them is numpy's .npz, compressed, without pickles: `about`, JSON as bytes, and of either side its columns,
`truth.box` and so on; masks are the letters of all codes, and how many each has. Equal content makes equal bytes.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resim_bench import files
from resim_bench.errors import UserError
from transfer.masks import cover

SUFFIX = ".detections.npz"  # after the stem of the record beside which a file stands
_KIND, _VERSION = "resim-bench detections", 1


class Images(NamedTuple):
    """The images of a test, in the order that decides between equal scores.

    Attributes:
        ids: VOC's names, COCO's file names; text or numbers.
        sizes: (n, 2) int64, height and width.
    """

    ids: list
    sizes: np.ndarray


class Truth(NamedTuple):
    """The N objects to find.

    Attributes:
        image: (N,) int64, numbers of images.
        label: (N,) int64, numbers of classes.
        box: (N, 4) float64 x0, y0, x1, y1 in pixels: COCO annotates to hundredths, which float32 would move.
        ignored: (N,) bool: VOC's difficult objects, COCO's crowds.
        area: (N,) float64: COCO's, by which an object is small, medium or large; of VOC its box's.
        mask: COCO's compressed run-length codes, or None.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    ignored: np.ndarray
    area: np.ndarray
    mask: list[bytes] | None = None


class Found(NamedTuple):
    """The N detections; columns as `Truth` has them, box and score (N,) in float32 as the detector gave them."""

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray
    mask: list[bytes] | None = None


class Detections(NamedTuple):
    """A test: its images, the names of classes by label, both sides, and the settings of the metric that measures it.

    `metric` is `{"type": "VOCAveragePrecision", …}`, what `transfer.metrics.measure` goes by.
    """

    images: Images
    classes: tuple[str, ...]
    truth: Truth
    found: Found
    metric: dict = {}


_SIDES = {"truth": Truth, "found": Found}
_COLUMNS = {
    ("truth", "image"): (np.int64, ()),
    ("truth", "label"): (np.int64, ()),
    ("truth", "box"): (np.float64, (4,)),
    ("truth", "ignored"): (np.bool_, ()),
    ("truth", "area"): (np.float64, ()),
    ("found", "image"): (np.int64, ()),
    ("found", "label"): (np.int64, ()),
    ("found", "box"): (np.float32, (4,)),
    ("found", "score"): (np.float32, ()),
}


def gather(side: str, parts: Sequence[dict], images: Sequence[int]) -> Truth | Found:
    """`truth` or `found` of the columns of each image, one image after another; `images` are their numbers."""
    counts = np.array([len(part["label"]) for part in parts], np.int64)
    columns: dict = {"image": np.repeat(np.asarray(images, np.int64), counts)}
    for name in _SIDES[side]._fields[1:]:
        if name != "mask":
            dtype, shape = _COLUMNS[side, name]
            columns[name] = np.concatenate([np.empty((0, *shape), dtype), *(part[name] for part in parts)])
        elif any("mask" in part for part in parts):
            columns[name] = [code for part in parts for code in part["mask"]]
    return _SIDES[side](**columns)


def write(file: Path, detections: Detections) -> str:
    """Put detections into a file; a reader finds the whole file or the one before. Returns its sha256.

    Raises:
        TypeError: a column does not fit its type without loss.
    """
    about = {
        "kind": _KIND,
        "version": _VERSION,
        "ids": list(detections.images.ids),
        "classes": list(detections.classes),
        "metric": detections.metric,
        "masks": [side for side in _SIDES if getattr(detections, side).mask is not None],
    }
    arrays = {
        "about": np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8),
        "sizes": np.asarray(detections.images.sizes).reshape(-1, 2).astype(np.int64, casting="safe"),
    }
    for (side, name), (dtype, shape) in _COLUMNS.items():
        column = np.asarray(getattr(getattr(detections, side), name))
        arrays[f"{side}.{name}"] = column.reshape(-1, *shape).astype(dtype, casting="safe")
    for side in about["masks"]:
        codes = getattr(detections, side).mask
        arrays[f"{side}.mask"] = np.frombuffer(b"".join(codes), np.uint8)
        arrays[f"{side}.mask_letters"] = np.array([len(code) for code in codes], np.int64)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    with files.replacing(file) as stream:
        stream.write(packed.getbuffer())
    return hashlib.sha256(packed.getbuffer()).hexdigest()


def read(file: Path, sha256: str | None = None) -> Detections:
    """The detections in a file.

    Args:
        sha256: that the file has to have; None takes any.

    Raises:
        UserError: it cannot be read, has another checksum, is damaged, or holds something else.
    """
    try:
        content = files.read(file)
    except OSError as error:
        raise UserError(
            f"cannot read the detections {file} ({error.strerror}): restore it, or run the trial again"
        ) from error
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(
            f"{file} has changed since it was written (another checksum than its record names): restore it, or delete "
            "it and its record, and run the trial again"
        )
    try:
        if not content.startswith(b"PK"):  # numpy would advise to unpickle it
            raise ValueError("it is no .npz")
        with np.load(io.BytesIO(content), allow_pickle=False) as packed:
            return _unpacked({name: packed[name] for name in packed.files})
    except Exception as error:  # whatever numpy, zipfile and JSON say of what is none
        why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{file} holds no detections, or is damaged ({why}): give a record, or the {SUFFIX} beside one"
        ) from error


def _unpacked(arrays: dict[str, np.ndarray]) -> Detections:
    """What `write` packed; an exception where it is something else."""
    about = json.loads(arrays["about"].tobytes())
    if (about["kind"], about["version"]) != (_KIND, _VERSION):
        raise ValueError(f"it is {about['kind']} {about['version']}, and not {_KIND} {_VERSION}")
    ids, classes, metric = about["ids"], about["classes"], about["metric"]
    for name, kind in (("ids", list), ("classes", list), ("metric", dict)):
        if not isinstance(about[name], kind):
            raise ValueError(f"{name} is {type(about[name]).__name__}")
    sizes = _column(arrays, "sizes", np.int64, (len(ids), 2))
    if (sizes <= 0).any():
        raise ValueError("an image has no size")
    sides = {side: _side(side, arrays, sizes, len(classes), side in about["masks"]) for side in _SIDES}
    return Detections(Images(ids, sizes), tuple(map(str, classes)), **sides, metric=metric)


def _side(side: str, arrays: dict[str, np.ndarray], sizes: np.ndarray, classes: int, with_masks: bool) -> Truth | Found:
    count = len(arrays[f"{side}.image"])
    columns: dict = {
        name: _column(arrays, f"{side}.{name}", dtype, (count, *shape))
        for (of, name), (dtype, shape) in _COLUMNS.items()
        if of == side
    }
    for name, most in (("image", len(sizes)), ("label", classes)):
        if count and not 0 <= columns[name].min() <= columns[name].max() < most:
            raise ValueError(f"{side}.{name} goes beyond the {most} that there are")
    if with_masks:
        columns["mask"] = _codes(arrays[f"{side}.mask"], arrays[f"{side}.mask_letters"])
        if len(columns["mask"]) != count or not cover(columns["mask"], sizes[columns["image"]]):
            raise ValueError(f"{side}.mask are no masks of its images")
    return _SIDES[side](**columns)


def _column(arrays: dict[str, np.ndarray], name: str, dtype, shape: tuple) -> np.ndarray:
    column = arrays[name]
    if column.dtype != dtype or column.shape != shape:
        raise ValueError(f"{name} is {column.dtype} of shape {column.shape}")
    if column.dtype.kind == "f" and name.startswith("truth.") and not np.isfinite(column).all():
        raise ValueError(f"{name} has a number that is none")
    return column


def _codes(letters: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    if lengths.dtype != np.int64 or (lengths < 0).any() or lengths.sum() != len(letters):
        raise ValueError("its masks are cut short")
    ends, text = np.cumsum(lengths), letters.tobytes()
    return [text[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]
