"""What every detection data set is: a folder with a training and a test split, read once, into draws without history.

A reader gathers what a split's files say; `complete` holds it against the images and makes columns of it, which serve
training, test and evaluation. docs/data.md has the rules.
"""

import hashlib
import os
import random
from array import array
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from resim_bench.data import images
from resim_bench.data.survey import Found, Survey
from resim_bench.errors import UserError
from resim_bench.harness import runs
from transfer import imagefiles

FARTHEST = 1e6  # pixels: no image is as wide, and masks of outlines beyond would fill the memory
SLIMMEST = 100  # times as long as wide: less than a pixel would be left of the width where an image is scaled down
NOTHING_COUNTS = "splits without an object that counts"
IN_BOTH = "images of the training that are tested, too"


@dataclass
class Masks:
    """Outlines of m objects in two arrays, and run-length codes as they were given.

    Attributes:
        points: x and y of all outlines, one after another.
        ends: (p + 1,) where the points of each outline begin, and the last ends.
        outlines: (m, 2) first outline of each object, and the one after its last.
        run_lengths: by object.
    """

    points: np.ndarray
    ends: np.ndarray
    outlines: np.ndarray
    run_lengths: dict[int, dict]

    def __getitem__(self, k: int) -> list[list[float]] | dict:
        """COCO's segmentation of object `k`: outlines [x0, y0, x1, y1, …], or a run-length code."""
        if k in self.run_lengths:
            return self.run_lengths[k]
        return [self.points[self.ends[p] : self.ends[p + 1]].tolist() for p in range(*self.outlines[k])]


@dataclass
class Split:
    """A split as it was read: n images, and m objects in the order of their images.

    Attributes:
        survey: what it holds, what is left out and what is wrong; with a fault nothing else here is to be relied on.
        root: the data set's folder.
        ids: of the images, as results name them.
        names, sources: (n) image file and the file that annotates it, below `root`.
        sizes: (n, 2) width and height, as the image is read.
        exif: (n,) whether it is turned as EXIF says.
        first: (n + 1,) the first object of each image, and m.
        classes: names by number, in the order of labels.
        labels: (m,) numbers of classes.
        boxes: (m, 4) x0, y0, x1, y1 in continuous pixels.
        ignored: (m,) a detector is not blamed for missing it: VOC's difficult objects, COCO's crowds.
        trains: (m,) whether it takes part in a training.
        masks, extents, areas: COCO's, where there are any: extents are (m, 2) widths and heights of boxes as given.
        lists, annotations: entries of the content's digest.
    """

    survey: Survey
    root: Path
    ids: list
    names: list[str]
    sources: list[str]
    sizes: np.ndarray
    exif: np.ndarray
    first: np.ndarray
    classes: tuple[str, ...]
    labels: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    trains: np.ndarray
    lists: list[bytes]
    annotations: list[bytes]
    masks: Masks | None = None
    extents: np.ndarray | None = None
    areas: np.ndarray | None = None

    def path(self, i: int) -> str:
        """Where image `i` is."""
        return os.path.join(self.root, self.names[i])

    def trained_images(self, fraction: float = 1.0) -> np.ndarray:
        """Numbers of the images with an object that trains, or of a fraction of them (`share`)."""
        images = np.unique(owners_of(self.first)[self.trains])
        return images if fraction == 1 else images[share([self.names[i] for i in images], fraction)]


def share(names: Sequence[str], fraction: float) -> list[int]:
    """Numbers of the images that are this fraction of all, at least one; ascending.

    They are the first by the sha256 of their names, whatever order the files are in: a list drawn at random, but the
    same for everybody, and a smaller fraction's lies inside of a larger one's.
    """
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(os.fsencode(names[i])).digest())
    return sorted(order[: max(1, round(fraction * len(names)))])


def owners_of(first: np.ndarray) -> np.ndarray:
    """The image of each object, of a split's `first`."""
    return np.repeat(np.arange(len(first) - 1), np.diff(first))


@dataclass
class Gathered:
    """What a reader gathers of a split, image by image and object by object, in the order of its files.

    Attributes:
        root, split: which.
        origin: what the format calls the first pixel, for sentences.
        ids, names, sources: as `Split` has them.
        annotated: width and height of each image as its annotation says, 0 where it does not.
        owners, labels, boxes, ignored: of each object; boxes are four numbers each.
        numbers: what a sentence calls each object, by its reader.
        left_out: kinds of objects that do not train for a reason of the format, with their numbers in `owners`.
    """

    root: Path
    split: str
    origin: int = 0
    survey: Survey = field(init=False)
    ids: list = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    annotated: list[tuple[float, float]] = field(default_factory=list)
    owners: array = field(default_factory=lambda: array("q"))
    labels: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("d"))
    ignored: array = field(default_factory=lambda: array("b"))
    numbers: list = field(default_factory=list)
    lists: list[bytes] = field(default_factory=list)
    annotations: list[bytes] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self):
        self.survey = Survey(f"{self.root}, {self.split}")

    def add_image(self, number, name: str, source: str, size: tuple[float, float]) -> None:
        """Add an image with its annotated size."""
        self.ids.append(number)
        self.names.append(name)
        self.sources.append(source)
        self.annotated.append(size)

    def add_object(self, owner: int, label: int, box: Sequence[float], ignored: bool, number) -> None:
        """Add an object of image `owner`."""
        self.owners.append(owner)
        self.labels.append(label)
        self.boxes.extend(box)
        self.ignored.append(ignored)
        self.numbers.append(number)

    def leave_out(self, kind: str) -> None:
        """Let the object that was added last not train."""
        self.left_out.setdefault(kind, []).append(len(self.owners) - 1)


def complete(
    found: Gathered,
    classes: Sequence[str],
    ignored_as: str,
    name_image: Callable[[int], str],
    name_object: Callable[[int], tuple[str, str]],
) -> tuple[Split, np.ndarray]:
    """Hold what was gathered against the images, judge every box, and make columns of it.

    Args:
        found: its survey is added to.
        classes: names by label.
        ignored_as: what objects that are ignored are called where those do not train; else "".
        name_image: by image, what annotates it, as a sentence begins.
        name_object: by number in `found.owners`: short name for a list, and as a sentence begins.

    Returns:
        The split, and for each of its objects the number in `found.owners`.
    """
    survey, training = found.survey, found.split == "train"
    sizes, exif = _sizes(found, name_image)
    owners = np.frombuffer(found.owners, np.int64) if found.owners else np.zeros(0, np.int64)
    boxes = np.frombuffer(found.boxes, np.float64).reshape(-1, 4) if found.boxes else np.zeros((0, 4))
    ignored = np.array(found.ignored, bool)
    trains = np.ones(len(owners), bool)
    if ignored_as and training:
        trains &= ~ignored
        for k in np.flatnonzero(ignored):
            survey.leave_out(ignored_as, name_object(k)[0])
    for kind, which in found.left_out.items():
        for k in which:
            if trains[k]:
                survey.leave_out(kind, name_object(k)[0])
                trains[k] = False
    for k, kind in _odd_boxes(boxes, sizes[owners]).items():
        where, subject = name_object(k)
        x0, y0, x1, y1 = (f"{number:g}" for number in boxes[k] + (found.origin, found.origin, 0, 0))
        if kind in ABSURD or not training:
            remedy = "correct it" if training else "correct it, or take the object out"
            width, height = (f"{side:g}" for side in sizes[owners[k]])
            survey.fault(
                f"boxes that are {kind}",
                where,
                f"{subject} has a box that is {kind} (from {x0}, {y0} to {x1}, {y1} in an image of "
                f"{width} x {height}): {remedy}",
            )
        elif trains[k]:
            survey.leave_out(f"boxes that are {kind}", where)
        trains[k] = False
    if len(boxes) and boxes.max() <= 1 and (boxes % 1).any():
        survey.fault(
            "splits whose boxes are fractions of the image",
            found.split,
            f"all boxes of {survey.title} lie between 0 and 1, as fractions of the image do: give them in pixels",
        )
    order = np.argsort(owners, kind="stable")
    first = np.searchsorted(owners[order], np.arange(len(found.names) + 1))
    split = Split(
        survey,
        found.root,
        found.ids,
        found.names,
        found.sources,
        np.nan_to_num(sizes, posinf=0).astype(np.int64),
        exif,
        first,
        tuple(classes),
        np.array(found.labels, np.int64)[order],
        boxes[order],
        ignored[order],
        trains[order],
        found.lists,
        found.annotations,
    )
    _count(split, training)
    return split, order


def _count(split: Split, training: bool) -> None:
    """Say how much there is, and whether it is enough."""
    survey = split.survey
    survey.images, survey.objects, survey.classes = len(split.names), len(split.labels), len(split.classes)
    counts = ~split.ignored
    if training:
        trained, counts = split.trained_images(), split.trains
        survey.images, survey.objects = len(trained), int(split.trains.sum())
        for i in np.setdiff1d(np.arange(len(split.names)), trained, assume_unique=True):
            survey.leave_out("images without an object to train on", split.names[i])
    if not counts.any() and not survey.faults:
        name = "training" if training else "test"
        survey.fault(
            NOTHING_COUNTS,
            name,
            f"no image of the {name} split in {split.root} has an object that counts: annotate some",
        )


def _sizes(found: Gathered, name_image) -> tuple[np.ndarray, np.ndarray]:
    """Width and height (n, 2) of each image as it is read, infinite where that is not known; and whether EXIF turns it.

    The image's own size decides, turned as EXIF says; unless the annotated size is the stored one and not the turned.
    """
    survey, n = found.survey, len(found.names)
    own, exif = np.full((n, 2), np.inf), np.ones(n, bool)
    read = imagefiles.sizes(found.root, found.names, found.split)
    for i, (size, annotated) in enumerate(zip(read, found.annotated, strict=True)):
        if isinstance(size, str):
            survey.fault("images that cannot be read", found.names[i], size)
            continue
        width, height, turned = size
        stored = width, height
        seen = (height, width) if turned else stored
        if not _agree(annotated, seen):
            if not _agree(annotated, stored):
                survey.fault(
                    "sizes that are not the image's",
                    found.names[i],
                    f"{name_image(i)} says that its image has {annotated[0]:g} x {annotated[1]:g} pixels, but "
                    f"{os.path.join(found.root, found.names[i])} has {seen[0]} x {seen[1]}: correct the size, or "
                    "restore the image",
                )
                continue
            exif[i], seen = False, stored
            survey.note("images whose boxes are of the image as stored, so that EXIF does not turn it", found.names[i])
        elif not all(annotated):
            survey.note("images whose size is not annotated, and is taken from the file", found.names[i])
        if max(seen) > SLIMMEST * min(seen):
            survey.fault(
                "images that are too slim",
                found.names[i],
                f"{os.path.join(found.root, found.names[i])} has {seen[0]} x {seen[1]} pixels, and nothing is left of "
                f"the shorter side once it is scaled: take out what is more than {SLIMMEST} times as long as wide",
            )
        own[i] = seen
    return own, exif


def _agree(annotated, size) -> bool:
    return all(said in (0, side) for said, side in zip(annotated, size, strict=True))


ABSURD = "beyond any image", "far beyond the image"


def _odd_boxes(boxes: np.ndarray, sizes: np.ndarray) -> dict[int, str]:
    """What is odd about boxes (m, 4) in images of `sizes` (m, 2), by number."""
    with np.errstate(invalid="ignore"):
        corner, opposite = boxes[:, :2], boxes[:, 2:]
        inside = np.minimum(opposite, sizes) > np.maximum(corner, 0)
        conditions = {
            "not finite": ~np.isfinite(boxes).all(1),
            ABSURD[0]: (np.abs(boxes) > FARTHEST).any(1),
            "inverted": (opposite < corner).any(1),
            "without area": (opposite <= corner).any(1),
            "outside of the image": ~inside.all(1),
            ABSURD[1]: ((corner < -sizes) | (opposite > 2 * sizes)).any(1),
        }
    odd: dict[int, str] = {}
    for kind, holds in conditions.items():
        for k in np.flatnonzero(holds).tolist():
            odd.setdefault(k, kind)
    return dict(sorted(odd.items()))


@contextmanager
def seeded(*position: int):
    """Global generators (torch on CPU, numpy, random) as a function of `position`; restored afterwards."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    state = int(np.random.SeedSequence(position).generate_state(1)[0])
    torch.default_generator.manual_seed(state)  # torch.manual_seed would reseed the GPUs, too
    np.random.seed(state)
    random.seed(state)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def read_pixels(results: dict) -> dict:
    """MMDetection's sample with its image, BGR: what `LoadImageFromFile` does by Pillow, of any image file.

    The image is contiguous in memory: Pillow is slow to take in a reversed view where it resizes.

    Raises:
        UserError: it cannot be read, or has another size than when the data set was read.
    """
    image = images.decode(results["img_path"], exif=results["exif"])
    size = image.shape[1], image.shape[0]
    if size != (results["width"], results["height"]):
        raise UserError(
            f"{results['img_path']} has {size[0]} x {size[1]} pixels, and had {results['width']} x "
            f"{results['height']} when the data set was read: start again once nothing changes it"
        )
    return results | {
        "img": np.ascontiguousarray(image[:, :, ::-1]),
        "img_shape": image.shape[:2],
        "ori_shape": image.shape[:2],
    }


def _loading(pipeline: Sequence) -> list:
    """The pipeline with `read_pixels` for MMDetection's transform that does the same."""
    if not pipeline:
        return []
    first, *others = pipeline
    theirs = isinstance(first, dict) and str(first.get("type")).endswith("LoadImageFromFile")
    if not theirs or first.get("imdecode_backend") != "pillow":
        return [first, in_one_piece, *others]
    return [read_pixels, *others]


class DetectionFolder(BaseDataset):
    """A split of a folder for MMDetection; a subclass says how the folder is found and read.

    Training leaves out boxes without area in the image, as Detectron2 does (every anchor would match one at an IoU of
    0), and images without any object; testing keeps all. An index may be `(draw, index)`: then everything random about
    the sample is a function of (seed, draw), whatever worker makes it and whenever.

    Args:
        data_root: the folder.
        split: `train` or `test`.
        classes: names by label; None takes those of the training split.
        seed: of the draws.
        fraction: of the images that train, those of `share`.
        pipeline: MMDetection's transforms, of which the first loads the image.

    Raises:
        UserError: the folder cannot be read; a class occurs that `classes` lacks; an image cannot be read.
    """

    metric: str  # that tests it
    has_outlines = False

    def __init__(self, data_root, split, classes=None, seed=0, fraction=1.0, pipeline=()):
        self.split, self.seed, self.fraction = split, seed, fraction
        root = self.find(data_root)
        masks = any(isinstance(step, dict) and step.get("with_mask") for step in pipeline)
        self.reading = self.read_once(root, split, masks if split == "train" else None)
        self.reading.survey.refuse()
        classes = class_names(classes) or self.read_once(root, "train").classes
        check_classes(self.reading, classes)
        self.labels = [classes.index(name) if name in classes else -1 for name in self.reading.classes]
        super().__init__(
            metainfo=dict(classes=classes),
            data_root=str(root),
            pipeline=_loading(pipeline),
            test_mode=split == "test",
            serialize_data=False,  # arrays are shared with workers anyway
        )

    @staticmethod
    def find(folder: Path) -> Path:
        """The data set's own folder, where `folder` is it or holds it; UserError where there is none."""
        raise NotImplementedError

    @staticmethod
    def read(root: Path, split: str, masks: bool | None = None) -> Split:
        """The split `train` or `test`; what is wrong with it is among its survey's faults.

        Args:
            root: the data set's own folder.
            split: which.
            masks: whether outlines are needed; None where any object has one.
        """
        raise NotImplementedError

    @staticmethod
    def result_names(split: Split) -> list:
        """What results call the images of a split."""
        return split.ids

    @classmethod
    def read_once(cls, root: Path, split: str, masks: bool | None = None) -> Split:
        """As `read`, whose result is kept as long as no other folder is read; None as it was asked for before."""
        key = cls, str(root)
        for other in [other for other in _READ if other[:2] != key]:
            del _READ[other]
        wanted = (None,) if not cls.has_outlines else (None, True, False) if masks is None else (masks,)
        for kind in wanted:
            if (*key, split, kind) in _READ:
                return _READ[*key, split, kind]
        return _READ.setdefault((*key, split, wanted[0]), cls.read(Path(root), split, wanted[0]))

    @classmethod
    def splits(cls, root: Path, masks: bool | None = None) -> tuple[Split, Split]:
        """What trains and what is tested, read once; images that do both are noted."""
        train, test = (cls.read_once(root, split, masks) for split in ("train", "test"))
        train.survey.notes.pop(IN_BOTH, None)
        tested = set(test.names)
        for name in train.names:
            if name in tested:
                train.survey.note(IN_BOTH, name)
        return train, test

    @classmethod
    def surveys(cls, root: Path, masks: bool | None = None) -> list[Survey]:
        """Of the training and the test; that a class is tested which does not train is a fault, too."""
        train, test = cls.splits(root, masks)
        faults = dict(test.survey.faults)
        try:
            check_classes(test, train.classes)
        except UserError as error:
            if not train.survey.faults:
                faults["classes that do not train"] = Found(
                    1, ", ".join(sorted(set(test.classes) - set(train.classes))), str(error)
                )
        return [train.survey, replace(test.survey, faults=faults)]

    @classmethod
    def facts(
        cls, root: Path, classes: Sequence[str] | None = None, masks: bool | None = None, fraction: float = 1.0
    ) -> dict:
        """Digest of the content, number of images that train and of those that test, class names.

        Of a fraction also `used_images`, how many of those that train it is.
        A run begins here: the folder is read anew.

        Raises:
            UserError: the data cannot be used; a class occurs that `classes` lacks.
        """
        _READ.clear()
        splits = train, test = cls.splits(root, masks)
        names = class_names(classes) or train.classes
        for split in splits:
            split.survey.refuse()
            check_classes(split, names)
        digest = runs.content_digest(
            lists=[entry for split in splits for entry in split.lists],
            annotations=[entry for split in splits for entry in split.annotations],
            images=map(os.fsencode, sorted({*train.names, *test.names})),
        )
        return {
            "digest": digest,
            "train_images": len(train.trained_images()),
            "test_images": len(test.names),
            "classes": list(names),
        } | ({} if fraction == 1 else {"used_images": len(train.trained_images(fraction))})

    @classmethod
    def old_digest(cls, root: Path) -> str:
        """What stood for the digest before it went by content: names and sizes of all files."""
        splits = cls.splits(root)
        files = {Path(root, name) for split in splits for name in (*split.names, *split.sources)}
        return runs.data_digest(root, files)

    @classmethod
    def check_test(cls, root: Path) -> None:
        """Decode what will be tested.

        Raises:
            UserError: an image cannot be read.
        """
        imagefiles.check_decodable(root, cls.read_once(root, "test").names, "test")

    def load_data_list(self):
        """Numbers of the images that take part."""
        reading = self.reading
        return list(range(len(reading.names))) if self.test_mode else reading.trained_images(self.fraction).tolist()

    def _info(self, i: int) -> dict:
        """MMDetection's form of image `i`."""
        split = self.reading
        width, height = split.sizes[i].tolist()
        objects = range(split.first[i], split.first[i + 1])
        return {
            "img_id": split.ids[i],
            "img_path": split.path(i),
            "exif": bool(split.exif[i]),
            "width": width,
            "height": height,
            "instances": [
                {
                    "bbox": split.boxes[k].tolist(),
                    "bbox_label": self.labels[split.labels[k]],
                    "ignore_flag": int(split.ignored[k] and self.test_mode),
                    "mask": split.masks[k] if split.masks else None,
                }
                for k in objects
                if self.test_mode or split.trains[k]
            ],
        }

    def get_data_info(self, idx):
        """Annotation of `index` or `(draw, index)`."""
        index = idx[1] if isinstance(idx, tuple) else idx
        return self._info(self.data_list[index]) | {"sample_idx": index}

    def __getitem__(self, idx):
        """Sample `index`, or sample `(draw, index)` with the random numbers of its draw."""
        if not isinstance(idx, tuple):
            return super().__getitem__(idx)
        with seeded(self.seed, idx[0]):
            return super().__getitem__(idx)

    def prepare_data(self, idx):
        """Run the pipeline; name the image that cannot be read."""
        info = self.get_data_info(idx)
        try:
            return self.pipeline(info)
        except (OSError, SyntaxError, AssertionError) as error:  # what Pillow and OpenCV say of a broken file
            raise UserError(f"cannot read the image {info['img_path']} ({error}): repair or replace it") from error


_READ: dict[tuple, Split] = {}


def in_one_piece(results: dict) -> dict:
    """MMDetection's sample with its image contiguous in memory, where another transform loaded it."""
    results["img"] = np.ascontiguousarray(results["img"])
    return results


def class_names(classes: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names by label; one name is a list of one, and none of them is none."""
    return (classes,) if isinstance(classes, str) else tuple(classes or ())


def check_classes(split: Split, classes: Sequence[str]) -> None:
    """Refuse a split with a class that `classes` lacks; a class that does not occur is fine.

    Raises:
        UserError: names the first such object's file and class.
    """
    lacking = [label for label, name in enumerate(split.classes) if name not in classes]
    for k in np.flatnonzero(np.isin(split.labels, lacking))[:1]:
        source = os.path.join(split.root, split.sources[owners_of(split.first)[k]])
        raise UserError(
            f"{source} has an object of class '{split.classes[split.labels[k]]}', which is not among the classes "
            f"{', '.join(classes)}: give a list that holds it, or none to read it from the annotations"
        )
