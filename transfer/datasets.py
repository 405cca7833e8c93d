"""What every detection data set is: a folder with a training and a test split, read into draws without history."""

import os
import random
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from resim_bench import runs
from resim_bench.errors import UserError

SPLITS = ("train", "test")


class Object(NamedTuple):
    """An annotated object.

    `ignore` says that a detector is not blamed for missing it: VOC's difficult objects, COCO's crowds. `mask` is COCO's
    segmentation: a list of polygons [x0, y0, x1, y1, …], or a run-length code as a dict.
    """

    name: str
    box: tuple[float, float, float, float]  # (x0, y0, x1, y1) in continuous pixels
    ignore: bool
    mask: list | dict | None = None


class Annotation(NamedTuple):
    """An image with its objects; `source` is the file that annotates it."""

    id: str | int
    image: Path
    source: Path
    width: int
    height: int
    objects: tuple[Object, ...]


class Split(NamedTuple):
    """The images of a training or test split, and the classes that its annotations know, in the order of labels."""

    annotations: list[Annotation]
    classes: tuple[str, ...]


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


def in_one_piece(results: dict) -> dict:
    """MMDetection's sample with its image contiguous in memory.

    BGR comes as a reversed view of what Pillow read, and Pillow is slow to take that in where it resizes: a sixth of
    the time of a whole pipeline.
    """
    results["img"] = np.ascontiguousarray(results["img"])
    return results


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
        pipeline: MMDetection's transforms, of which the first loads the image.

    Raises:
        UserError: the folder cannot be read; a class occurs that `classes` lacks; an image cannot be read.
    """

    trains_on_ignored: bool

    def __init__(self, data_root, split, classes=None, seed=0, pipeline=()):
        self.split, self.seed = split, seed
        root = self.find(data_root)
        super().__init__(
            metainfo=dict(classes=tuple(classes or self.read(root, "train").classes)),
            data_root=str(root),
            pipeline=[*pipeline[:1], in_one_piece, *pipeline[1:]] if pipeline else [],
            test_mode=split == "test",
        )

    @staticmethod
    def find(folder: Path) -> Path:
        """The data set's own folder, where `folder` is it or holds it; UserError where there is none."""
        raise NotImplementedError

    @staticmethod
    def read(root: Path, split: str) -> Split:
        """The split `train` or `test`; UserError where a file is missing or broken."""
        raise NotImplementedError

    @classmethod
    def facts(cls, root: Path, classes: Sequence[str] | None = None) -> dict:
        """Digest of the files, number of images that train and of those that test, class names.

        Raises:
            UserError: see `read`; a class occurs that `classes` lacks; there is nothing to train on or to find.
        """
        train, test = (cls.read(root, split) for split in ("train", "test"))
        training = [a for a in train.annotations if cls.trained_on(a)]
        to_find = [o for a in test.annotations for o in a.objects if not o.ignore]
        for name, some in (("training", training), ("test", to_find)):
            if not some:
                raise UserError(f"no image of the {name} split in {root} has an object that counts: annotate some")
        classes = list(classes or train.classes)
        check_classes([*train.annotations, *test.annotations], classes)
        annotated = (*train.annotations, *test.annotations)
        return {
            "digest": runs.content_digest(
                lists=(
                    f"{split}:{a.id}".encode()
                    for split, part in zip(SPLITS, (train, test), strict=True)
                    for a in part[0]
                ),
                annotations=(file.read_bytes() for file in sorted({a.source for a in annotated})),
                images=sorted({os.fsencode(a.image.relative_to(root)) for a in annotated}),
            ),
            "train_images": len(training),
            "test_images": len(test.annotations),
            "classes": classes,
        }

    @classmethod
    def old_digest(cls, root: Path) -> str:
        """The digest of before it went by content: names and sizes, for what was started or recorded then."""
        annotated = [a for split in SPLITS for a in cls.read(root, split).annotations]
        return runs.data_digest(root, {file for a in annotated for file in (a.image, a.source)})

    @classmethod
    def trained_on(cls, annotation: Annotation) -> list[Object]:
        """The objects of an image that train."""

        def is_inside(box):
            x0, y0, x1, y1 = box
            return min(x1, annotation.width) > max(x0, 0) and min(y1, annotation.height) > max(y0, 0)

        return [o for o in annotation.objects if is_inside(o.box) and (cls.trains_on_ignored or not o.ignore)]

    def load_data_list(self):
        """MMDetection's form of the annotations."""
        annotations = self.read(Path(self.data_root), self.split).annotations
        labels = {name: label for label, name in enumerate(self.metainfo["classes"])}
        check_classes(annotations, labels)
        infos = [self._info(annotation, labels) for annotation in annotations]
        return [info for info in infos if info["instances"] or self.test_mode]

    def _info(self, annotation: Annotation, labels: dict[str, int]) -> dict:
        return {
            "img_id": annotation.id,
            "img_path": str(annotation.image),
            "width": annotation.width,
            "height": annotation.height,
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

    def prepare_data(self, idx):
        """Run the pipeline; name the image that cannot be read."""
        info = self.get_data_info(idx)
        try:
            return self.pipeline(info)
        except (OSError, SyntaxError, AssertionError) as error:  # what Pillow and OpenCV say of a broken file
            raise UserError(f"cannot read the image {info['img_path']} ({error}): repair or replace it") from error


def check_classes(annotations: Sequence[Annotation], classes: Sequence[str]) -> None:
    """Refuse annotations with a class that `classes` lacks; a class that does not occur is fine.

    Raises:
        UserError: names the first such object's file and class.
    """
    for annotation in annotations:
        for o in annotation.objects:
            if o.name not in classes:
                raise UserError(
                    f"{annotation.source} has an object of class '{o.name}', which is not among the classes "
                    f"{', '.join(classes)}: give a list that holds it, or none to read it from the annotations"
                )
