"""Detectors beside each other: the test images in which what they found and missed differs most."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from resim_bench.comparison import RIGHT, Comparison, Counts, Detection, Object, Picture
from resim_bench.errors import UserError
from transfer import detections, errors, protocols, show
from transfer.datasets import Split
from transfer.detections import Detections, Found, Images, Truth

MOST = 36  # pictures
SIDE, QUALITY = 240, 80  # of a picture: pixels of its longer side, and JPEG's
KINDS = show.KINDS | {errors.RIGHT: RIGHT}


class _Judged(NamedTuple):
    """A method's detections that count, in order: of each its kind and the object that it has, or −1; of each image how
    many of them are right, and how many wrong.
    """

    found: Found
    kind: list[str]
    target: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


def compare(files: Mapping[str, tuple[Path, str]], transfer_id: str, data: Sequence[Path] = ()) -> Comparison:
    """The images in which the numbers of objects that methods find are the farthest apart, `MOST` of them at most.

    Of each method and image the best-scored detections count, as many as there are objects to find: no threshold suits
    the scores of a good detector and of a bad one. Those that only an ignored object has are passed over.

    Args:
        files: by method, its detections and their sha256; of two methods or more.
        transfer_id: the protocol that tested them.
        data: folders of data sets; the images come from the first that holds any, else from the protocol's own.

    Raises:
        UserError: detections cannot be read, or are of other test images than the first method's; or no image is there.
    """
    read = {method: detections.read(*file) for method, file in files.items()}
    first, *others = read.values()
    for method, other in zip(list(read)[1:], others, strict=True):
        if not _same_test(first, other):
            raise UserError(
                f"{method} and {next(iter(read))} were tested on other images or other annotations: run one of them "
                "again on the other's"
            )
    truth, count = first.truth, len(first.images.ids)
    objects = np.bincount(truth.image[~truth.ignored], minlength=count)
    judged = {method: _judge(of_one, objects) for method, of_one in read.items()}
    found = np.stack([one.right for one in judged.values()])
    apart = np.ptp(found, axis=0)
    order = np.lexsort((objects - found.max(0), -apart))
    differing = order[apart[order] > 0]
    pictures, lost = _pictures(first, judged, differing, transfer_id, data)
    total = int(objects.sum())
    totals = {method: Counts(total, int(one.right.sum()), int(one.wrong.sum())) for method, one in judged.items()}
    return Comparison(pictures, totals, count, len(differing), lost)


def _same_test(one: Detections, other: Detections) -> bool:
    """Whether images, classes and objects are the same; masks and areas are not compared."""
    columns = [name for name in Truth._fields if name not in ("mask", "area")]
    return (
        (one.images.ids, one.classes) == (other.images.ids, other.classes)
        and np.array_equal(one.images.sizes, other.images.sizes)
        and all(np.array_equal(getattr(one.truth, name), getattr(other.truth, name)) for name in columns)
    )


def _judge(of_one: Detections, objects: np.ndarray) -> _Judged:
    """The detections that count, judged among all: what has a lower score takes no object from them.

    Args:
        objects: (images,) to be found in each.
    """
    ordered = errors.in_order(of_one.found)
    kind, target, ignored = errors.judge(of_one._replace(found=ordered), show.IOU, show.BACKGROUND, masks=False)
    right, image = kind == errors.RIGHT, ordered.image
    counting = np.cumsum(right | ~ignored)
    before = np.append(0, counting)[np.searchsorted(image, image)]  # in earlier images
    rows = np.flatnonzero((right | ~ignored) & (counting - before <= objects[image]))
    image, right = image[rows], right[rows]
    return _Judged(
        Found(*(column[rows] for column in ordered[:4])),
        [KINDS[of] for of in kind[rows].tolist()],
        np.where(right, target[rows], -1),
        np.bincount(image[right], minlength=len(objects)),
        np.bincount(image[~right], minlength=len(objects)),
    )


def _pictures(
    of_one: Detections, judged: Mapping[str, _Judged], numbers: np.ndarray, transfer_id: str, data: Sequence[Path]
) -> tuple[list[Picture], int]:
    """Pictures of the first `MOST` of these images that can be read, and how many could not before the last of them."""
    pictures: list[Picture] = []
    lost = 0
    if len(numbers):
        split, names = _images(of_one, transfer_id, data)
        for number, jpeg in _jpegs(of_one.images, numbers, split, names):
            lost += not jpeg
            pictures += [_picture(of_one, judged, number, jpeg)] if jpeg else []
            if len(pictures) == MOST:
                break
    return pictures, lost


def _images(of_one: Detections, transfer_id: str, data: Sequence[Path]) -> tuple[Split, dict]:
    """The tested split in the first folder that holds any of its images."""
    for place in (*data, None):
        try:
            split, names = show.tested(of_one.metric.get("type", ""), transfer_id, place)
        except UserError:  # of another data set
            continue
        if split and not names.keys().isdisjoint(of_one.images.ids):
            return split, names
    own = protocols.load(transfer_id).data_root
    raise UserError(
        f"the test images of {transfer_id} are not in {own}: `resim-bench data` says how to get them; where they are "
        "elsewhere, say `resim-bench report --data DIR`"
    )


def _jpegs(images: Images, numbers: np.ndarray, split: Split, names: dict) -> Iterator[tuple[int, bytes]]:
    """Small files of images, empty where one is not to be had."""
    for number in numbers.tolist():
        try:
            pixels = show.pixels_of(images, number, split, names)
        except UserError:
            pixels = None
        yield number, b"" if pixels is None else _jpeg(pixels)


def _jpeg(pixels: np.ndarray) -> bytes:
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _picture(of_one: Detections, judged: Mapping[str, _Judged], image: int, jpeg: bytes) -> Picture:
    truth, (height, width) = of_one.truth, of_one.images.sizes[image].tolist()
    here = np.flatnonzero(truth.image == image)
    objects = [
        Object(_box(truth.box[k], width, height), of_one.classes[truth.label[k]], bool(truth.ignored[k])) for k in here
    ]
    place = {int(k): number for number, k in enumerate(here)}
    found = {
        method: [
            Detection(
                _box(one.found.box[row], width, height),
                of_one.classes[one.found.label[row]],
                float(one.found.score[row]),
                one.kind[row],
                place.get(int(one.target[row])),
            )
            for row in np.flatnonzero(one.found.image == image)
        ]
        for method, one in judged.items()
    }
    return Picture(str(of_one.images.ids[image]), (width, height), jpeg, objects, found)


def _box(box: np.ndarray, width: int, height: int) -> tuple[float, float, float, float]:
    """A box within a margin around the image that is as large as the image: a detector may say anything."""
    sides = np.array([width, height] * 2)
    return tuple(np.clip(np.nan_to_num(box.astype(float)), -sides, 2 * sides).tolist())
