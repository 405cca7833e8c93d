"""What every detection data set is: a folder with a training and a test split, read into draws without history.

A split is read once a run: what its format says by the format's own reader, and what holds for all of them (sizes,
orientation, boxes) here. What was found is in the split's survey.
"""

import dataclasses
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile as LoadByMMCV
from mmengine.dataset import BaseDataset

from resim_bench import runs
from resim_bench.data import images, memory
from resim_bench.data.survey import Found, Survey
from resim_bench.errors import UserError

SPLITS = ("train", "test")
FAR = 1  # a box may reach beyond the image by its own size and this often: none that somebody drew does


class Object(NamedTuple):
    """An annotated object.

    `ignore` says that a detector is not blamed for missing it: VOC's difficult objects, COCO's crowds. `mask` is COCO's
    segmentation: a list of polygons [x0, y0, x1, y1, …], or a run-length code as a dict, and `area` COCO's, in pixels.
    """

    name: str
    box: tuple[float, float, float, float]  # (x0, y0, x1, y1) in continuous pixels
    ignore: bool
    mask: list | dict | None = None
    area: float | None = None
    called: str = "an object"  # in a sentence: "object 2 ('ace')", "annotation 17"


class Annotation(NamedTuple):
    """An image with its objects; `source` is the file that annotates it.

    `width` and `height` are those of the image that the boxes are on, and `turned` says that this is the stored one
    turned as EXIF's orientation says. A reader gives the annotated size, and None for a side that is not.
    """

    id: str | int
    image: Path
    source: Path
    width: int | None
    height: int | None
    objects: tuple[Object, ...]
    turned: bool = False


class Split(NamedTuple):
    """A training or test split.

    `annotations` are its images that can be used, `classes` those that its annotations know, in the order of labels;
    `lists` and `parsed` are what `runs.content_digest` takes of its lists of images and of its annotations.
    """

    annotations: list[Annotation]
    classes: tuple[str, ...]
    survey: Survey
    lists: list[bytes]
    parsed: list[bytes]


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


class LoadImageFromFile(LoadByMMCV):
    """Reads an image as the whole suite does, 16 bits and damaged files included, in place of MMDetection's own.

    BGR comes contiguous in memory, not as a reversed view: Pillow is slow to take that in where it resizes, a sixth of
    the time of a whole pipeline.
    """

    def __init__(self, **settings):
        super().__init__(**settings)
        if self.imdecode_backend != "pillow" or self.color_type != "color":
            raise UserError("a data set's images are read in colour by Pillow: leave imdecode_backend and color_type")

    def transform(self, results: dict) -> dict:
        """Add `img` (H, W, 3), BGR, uint8 or float32, `img_shape` and `ori_shape`; UserError where it cannot be."""
        pixels = np.ascontiguousarray(images.decode(results["img_path"], exif=results["turned"])[:, :, ::-1])
        results["img"] = pixels.astype(np.float32) if self.to_float32 else pixels
        results["img_shape"] = results["ori_shape"] = pixels.shape[:2]
        return results


def _loading(pipeline: Sequence) -> list:
    """`pipeline` with the suite's own reading in the place of MMDetection's."""
    if not pipeline:
        return []
    first, *others = pipeline
    settings = {key: value for key, value in first.items() if key != "type"}
    return [LoadImageFromFile(**settings), *others]


class DetectionFolder(BaseDataset):
    """A split of a folder for MMDetection; a subclass says how the folder is found and read.

    Training leaves out boxes without area in the image, as Detectron2 does (every anchor would match one at an IoU of
    0), and images without any object; testing keeps all images and refuses such boxes. An index may be
    `(draw, index)`: then everything random about the sample is a function of (seed, draw), whatever worker makes it and
    whenever.

    Args:
        data_root: the folder.
        split: `train` or `test`.
        classes: names by label; None takes those of the training split.
        seed: of the draws.
        pipeline: MMDetection's transforms, of which the first loads the image.

    Raises:
        UserError: the folder cannot be used; a class occurs that `classes` lacks; an image cannot be read.
    """

    trains_on_ignored: bool

    def __init__(self, data_root, split, classes=None, seed=0, pipeline=()):
        self.split, self.seed = split, seed
        root = self.find(data_root)
        super().__init__(
            metainfo=dict(classes=tuple(classes or self.usable(root, "train").classes)),
            data_root=str(root),
            pipeline=_loading(pipeline),
            test_mode=split == "test",
        )

    @staticmethod
    def find(folder: Path) -> Path:
        """The data set's own folder, where `folder` is it or holds it; UserError where there is none."""
        raise NotImplementedError

    @staticmethod
    def read(root: Path, split: str) -> Split:
        """The split `train` or `test` as its files say it, with faults in its survey.

        Raises:
            UserError: there is no split to be read; what is wrong with a part of it is in the survey.
        """
        raise NotImplementedError

    @classmethod
    def reading(cls, root: Path, split: str) -> Split:
        """The split with all that holds for every format; read once, until `forget`.

        What is wrong is in its survey, and of a training split what is left out.
        """
        key = cls, Path(root), split
        if key not in _READ:
            _READ[key] = _read(*key)
        return _READ[key]

    @staticmethod
    def forget() -> None:
        """Read anew what is read next."""
        _READ.clear()

    @classmethod
    def usable(cls, root: Path, split: str) -> Split:
        """As `reading`; UserError where there is a fault."""
        found = cls.reading(root, split)
        found.survey.refuse()
        return found

    @classmethod
    def surveys(cls, root: Path) -> list[Survey]:
        """Of the training and of the test split, what there is and what is wrong."""
        train, test = (cls.reading(root, split) for split in SPLITS)
        training = {a.image for a in train.annotations}
        shared = [a.image.name for a in test.annotations if a.image in training]
        if shared:
            test.survey.notes["images of the test that train, too"] = Found(len(shared), shared[0])
        faults = dict(test.survey.faults)
        unknown = [(a, o) for a in test.annotations for o in a.objects if o.name not in train.classes]
        if unknown and not train.survey.faults:
            where = f"{unknown[0][0].image.name}, {unknown[0][1].called}"
            faults["objects of classes that do not train"] = Found(
                len(unknown), where, _unlisted(*unknown[0], train.classes)
            )
        return [train.survey, dataclasses.replace(test.survey, faults=faults)]

    @classmethod
    def facts(cls, root: Path, classes: Sequence[str] | None = None) -> dict:
        """Digest of the content, number of images that train and of those that test, class names.

        A run begins here: the folder is read anew.

        Raises:
            UserError: the folder cannot be used; a class occurs that `classes` lacks.
        """
        cls.forget()
        train, test = parts = [cls.usable(root, split) for split in SPLITS]
        annotated = [a for part in parts for a in part.annotations]
        classes = list(classes or train.classes)
        check_classes(annotated, classes)
        return {
            "digest": runs.content_digest(
                lists=(entry for part in parts for entry in part.lists),
                annotations=(entry for part in parts for entry in part.parsed),
                images=sorted({os.fsencode(a.image.relative_to(root)) for a in annotated}),
            ),
            "train_images": train.survey.images,
            "test_images": test.survey.images,
            "classes": classes,
        }

    @classmethod
    def old_digest(cls, root: Path) -> str:
        """The digest of before it went by content: names and sizes, for what was started or recorded then."""
        annotated = [a for split in SPLITS for a in cls.reading(root, split).annotations]
        return runs.data_digest(root, {file for a in annotated for file in (a.image, a.source)})

    @classmethod
    def decode_test(cls, root: Path) -> None:
        """Decode what the test needs, once: an image is remembered as long as its name, size and time stay.

        Raises:
            UserError: the first image that cannot be decoded, and how many more there are.
        """
        paths = [a.image for a in cls.reading(root, "test").annotations]

        def decoded(new: list[Path]) -> list:
            refused = images.unreadable([str(path) for path in new], "decoding the test")
            return [refused.get(str(path), True) for path in new]

        survey = Survey("test")
        for path, answer in _remembered("decoded", root, paths, decoded).items():
            if isinstance(answer, str):
                survey.fault("images", path.name, answer)
        survey.refuse()

    @classmethod
    def trained_on(cls, annotation: Annotation) -> list[Object]:
        """The objects of an image that train."""
        return [o for o in annotation.objects if cls.trains_on_ignored or not o.ignore]

    def load_data_list(self):
        """MMDetection's form of the annotations."""
        root = Path(self.data_root)
        annotations = self.usable(root, self.split).annotations
        labels = {name: label for label, name in enumerate(self.metainfo["classes"])}
        check_classes(annotations, labels)
        infos = [self._info(annotation, labels) for annotation in annotations]
        if not self.test_mode:  # COCO's training split takes gigabytes
            _READ.pop((type(self), root, self.split), None)
        return [info for info in infos if info["instances"] or self.test_mode]

    def _info(self, annotation: Annotation, labels: dict[str, int]) -> dict:
        return {
            "img_id": annotation.id,
            "img_path": str(annotation.image),
            "width": annotation.width,
            "height": annotation.height,
            "turned": annotation.turned,
            "instances": [
                {
                    "bbox": list(o.box),
                    "bbox_label": labels[o.name],
                    "ignore_flag": int(o.ignore and self.test_mode),
                    "mask": o.mask,
                }
                for o in (annotation.objects if self.test_mode else self.trained_on(annotation))
            ],
        }

    def get_data_info(self, idx):
        """Annotation of `index` or `(draw, index)`."""
        return super().get_data_info(idx[1] if isinstance(idx, tuple) else idx)

    def __getitem__(self, idx):
        """Sample `index`, or sample `(draw, index)` with the random numbers of its draw."""
        if not isinstance(idx, tuple):
            return super().__getitem__(idx)
        with seeded(self.seed, idx[0]):
            return super().__getitem__(idx)


_READ: dict[tuple[type[DetectionFolder], Path, str], Split] = {}


def _read(data_set: type[DetectionFolder], root: Path, split: str) -> Split:
    try:
        found = data_set.read(root, split)
    except UserError as error:
        survey = Survey(f"{root}, {split}", objects=0)
        survey.fault("splits that cannot be read", split, str(error))
        return Split([], (), survey, [], [])
    annotations = [_with_good_boxes(a, split, found.survey) for a in _sized(found, root, split)]
    _count(data_set, root, split, annotations, found)
    return found._replace(annotations=annotations)


def _count(data_set, root: Path, split: str, annotations: list[Annotation], found: Split) -> None:
    """Complete a survey; a split without an object that counts is a fault, if there is none that explains it."""
    survey = found.survey
    if split == "train":
        used = [objects for a in annotations if (objects := data_set.trained_on(a))]
        for annotation in annotations:
            trained = len(data_set.trained_on(annotation))
            for _ in range(len(annotation.objects) - trained):
                survey.leave_out("crowds", annotation.image.name)
            if not trained:
                survey.leave_out("images without objects", annotation.image.name)
        counts = bool(used)
    else:
        used = [a.objects for a in annotations]
        counts = any(not o.ignore for objects in used for o in objects)
    survey.images, survey.objects, survey.classes = len(used), sum(map(len, used)), len(found.classes)
    if not counts and not survey.faults:
        name = {"train": "training", "test": "test"}[split]
        sentence = f"no image of the {name} split in {root} has an object that counts: annotate some"
        survey.fault("splits without an object", split, sentence)


def _sized(found: Split, root: Path, split: str) -> Iterator[Annotation]:
    """The annotations with the images' own sizes, and whether EXIF turns them; the rest are faults.

    EXIF is applied, as Detectron2 does, unless the annotated size is the stored one and not the turned one.
    """

    def sizes(paths: list[Path]) -> list:
        return [_size_or_refusal(path) for path in paths]

    known = _remembered(f"sizes-{split}", root, [a.image for a in found.annotations], sizes)
    for a in found.annotations:
        if isinstance(known[a.image], str):
            found.survey.fault("images that cannot be read", a.image.name, known[a.image])
            continue
        width, height, exchanged = known[a.image]
        fitting = [(True, height, width), (False, width, height)] if exchanged else [(True, width, height)]
        fits = [
            size
            for size in fitting
            if all(given in (0, None, own) for given, own in zip((a.width, a.height), size[1:], strict=True))
        ]
        if fits:
            turned, wide, high = fits[0]
            yield a._replace(width=wide, height=high, turned=turned)
            continue
        given = " x ".join(str(side or "?") for side in (a.width, a.height))
        found.survey.fault(
            "sizes that contradict the image",
            a.image.name,
            f"{a.source} says that {a.image.name} has {given} pixels, but {a.image} has {width} x {height}: restore "
            "the image or, if the boxes are right on it, correct the size (0 is filled in)",
        )


def _size_or_refusal(path: Path) -> list | str:
    try:
        return list(images.stored_size(path))
    except UserError as error:
        return str(error)


def _remembered(kind: str, root: Path, paths: Sequence[Path], ask: Callable[[list[Path]], list]) -> dict:
    """`{path: answer}`: what `ask` says of files, asked only of those whose name, size or time changed since.

    Answers are JSON-able; one that is text is a refusal, and not remembered.
    """
    before = memory.recall(kind, root)
    before = before if isinstance(before, dict) else {}
    stamps, answers = {}, {}
    for path in dict.fromkeys(paths):
        try:
            stat = os.stat(path)
        except OSError:
            continue  # to ask says what it is
        name, stamp = os.path.relpath(path, root), [stat.st_size, stat.st_mtime_ns]
        stamps[path] = name, stamp
        match before.get(name):
            case [known, answer] if known == stamp:
                answers[path] = answer
    new = [path for path in dict.fromkeys(paths) if path not in answers]
    if new:
        answers |= zip(new, ask(new), strict=True)
        kept = {name: (stamp, answers[path]) for path, (name, stamp) in stamps.items()}
        memory.remember(kind, root, {name: entry for name, entry in kept.items() if not isinstance(entry[1], str)})
    return answers


_BAD_BOXES = {
    "boxes that are not finite": "is not finite",
    "inverted boxes": "is inverted",
    "boxes without area": "has no area",
    "boxes outside of the image": "is outside of the image",
    "boxes far beyond the image": "reaches far beyond the image",
}


def _bad_box(box: tuple[float, float, float, float], width: int, height: int) -> str | None:
    """Which of `_BAD_BOXES` a box is; beyond the border by a little is none."""
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        return "boxes that are not finite"
    if x1 < x0 or y1 < y0:
        return "inverted boxes"
    if x1 == x0 or y1 == y0:
        return "boxes without area"
    if min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0):
        return "boxes outside of the image"
    if min(x0 / width, y0 / height) < -FAR or max(x1 / width, y1 / height) > 1 + FAR:
        return "boxes far beyond the image"
    return None


def _with_good_boxes(annotation: Annotation, split: str, survey: Survey) -> Annotation:
    """An annotation without the objects that nothing can be learned from or matched with: in a test they are faults."""
    good = []
    for o in annotation.objects:
        kind = _bad_box(o.box, annotation.width, annotation.height)
        where = f"{annotation.image.name}, {o.called}"
        if kind is None:
            good.append(o)
        elif split == "train":
            survey.leave_out(kind, where)
        else:
            box = ", ".join(f"{corner:g}" for corner in o.box)
            survey.fault(
                kind,
                where,
                f"{annotation.source}: the box of {o.called} {_BAD_BOXES[kind]} ({box} on {annotation.image.name}, "
                f"{annotation.width} x {annotation.height}), and the test needs it: correct or remove it",
            )
    return annotation._replace(objects=tuple(good))


def check_classes(annotations: Sequence[Annotation], classes: Sequence[str]) -> None:
    """Refuse annotations with a class that `classes` lacks; a class that does not occur is fine.

    Raises:
        UserError: names the first such object's file and class.
    """
    for annotation in annotations:
        for o in annotation.objects:
            if o.name not in classes:
                raise UserError(_unlisted(annotation, o, classes))


def _unlisted(annotation: Annotation, o: Object, classes: Sequence[str]) -> str:
    return (
        f"{annotation.source} has an object of class '{o.name}', which is not among the classes "
        f"{', '.join(classes)}: give a list that holds it, or none to read it from the annotations"
    )
