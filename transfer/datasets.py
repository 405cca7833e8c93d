"""A folder in the format of PASCAL VOC, with Detectron2's boxes and draws that do not depend on history.

    VOCdevkit/VOC2007/{Annotations/<id>.xml, JPEGImages/<id>.jpg, ImageSets/Main/{trainval,test}.txt}
    VOCdevkit/VOC2012/{…, ImageSets/Main/trainval.txt}

Every VOC20xx with a trainval trains, VOC2007 tests.
"""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from resim_bench.errors import UserError

HOW_TO_GET = "give a VOCdevkit folder by --data, or put PASCAL VOC 2007 and 2012 into data/VOCdevkit"


class Annotation(NamedTuple):
    """One image of a VOC folder.

    `objects` holds (class name, (x0, y0, x1, y1), difficult): boxes in continuous pixels, [xmin - 1, ymin - 1, xmax,
    ymax] of the 1-based inclusive corners in the file, as Detectron2 reads them.
    """

    image: Path
    xml: Path
    width: int
    height: int
    objects: tuple[tuple[str, tuple[float, float, float, float], bool], ...]


def find_devkit(folder: Path) -> Path:
    """`folder` itself where it holds VOC20xx folders, else the VOCdevkit in it.

    Raises:
        UserError: neither holds one.
    """
    folder = Path(folder)
    for candidate in (folder, folder / "VOCdevkit"):
        if any(_years(candidate)):
            return candidate
    problem = "holds no VOC20xx folder" if folder.is_dir() else "does not exist"
    raise UserError(f"the VOC folder {folder} {problem}: {HOW_TO_GET}")


def _years(devkit: Path) -> list[Path]:
    return sorted(year for year in devkit.glob("VOC20*") if re.fullmatch(r"VOC20\d\d", year.name) and year.is_dir())


def read_split(devkit: Path, split: str) -> list[Annotation]:
    """The images of a split, in the order of its files.

    Args:
        devkit: the folder that holds VOC2007 and perhaps other years.
        split: `train` (the trainval of every year) or `test` (VOC2007's test).

    Raises:
        UserError: the split, an annotation or an image is missing, or an annotation cannot be read.
    """
    years = _years(Path(devkit)) if split == "train" else [Path(devkit) / "VOC2007"]
    name = {"train": "trainval.txt", "test": "test.txt"}[split]
    lists = [year / "ImageSets" / "Main" / name for year in years]
    present = [file for file in lists if file.is_file()]
    if not present:
        wanted = Path(devkit) / "VOC2007" / "ImageSets" / "Main" / name
        raise UserError(f"there is no {wanted}: {HOW_TO_GET}")
    annotations = [annotation for file in present for annotation in _read_list(file)]
    if not annotations:
        raise UserError(f"{present[0]} names no image: {HOW_TO_GET}")
    return annotations


def _read_list(file: Path) -> Iterator[Annotation]:
    year = file.parents[2]
    images = {image.stem: image for image in (year / "JPEGImages").glob("*")}
    for line in file.read_text().split("\n"):
        if not line.strip():
            continue
        name = line.split()[0]
        if name not in images:
            raise UserError(f"{file} names '{name}', but there is no {year / 'JPEGImages' / name}.jpg")
        yield _read_xml(year / "Annotations" / f"{name}.xml", images[name])


def _read_xml(xml: Path, image: Path) -> Annotation:
    try:
        root = ElementTree.parse(xml).getroot()
        size = root.find("size")
        return Annotation(
            image,
            xml,
            int(size.find("width").text),
            int(size.find("height").text),
            tuple(_read_object(node) for node in root.iterfind("object")),
        )
    except FileNotFoundError:
        raise UserError(f"there is no annotation {xml}: restore it, or take its image out of the list") from None
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{xml} is no annotation in VOC's format ({error}): repair or replace it") from None


def _read_object(node) -> tuple[str, tuple[float, float, float, float], bool]:
    box = node.find("bndbox")
    xmin, ymin, xmax, ymax = (float(box.find(corner).text) for corner in ("xmin", "ymin", "xmax", "ymax"))
    difficult = node.find("difficult")
    return (
        node.find("name").text.strip(),
        (xmin - 1, ymin - 1, xmax, ymax),
        difficult is not None and difficult.text.strip() == "1",
    )


def class_names(annotations: Sequence[Annotation]) -> tuple[str, ...]:
    """The classes that occur, sorted: for PASCAL VOC its twenty in their usual order.

    Raises:
        UserError: there is no object at all.
    """
    names = {name for annotation in annotations for name, _, _ in annotation.objects}
    if not names:
        raise UserError(f"no object is annotated beside {annotations[0].xml}: there is nothing to train on")
    return tuple(sorted(names))


def check_classes(annotations: Sequence[Annotation], classes: Sequence[str]) -> None:
    """Refuse annotations with a class that `classes` lacks; a class that does not occur is fine.

    Raises:
        UserError: names the first such object's file and class.
    """
    for annotation in annotations:
        for name, _, _ in annotation.objects:
            if name not in classes:
                raise UserError(
                    f"{annotation.xml} has an object of class '{name}', which is not among the classes "
                    f"{', '.join(classes)}: give a list that holds it, or none to read it from the annotations"
                )


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


@DATASETS.register_module()
class VOCFolder(BaseDataset):
    """A split of a VOC folder for MMDetection.

    Training takes difficult objects as positives and leaves out empty boxes and images without any object; testing
    keeps all and marks difficult objects to be ignored. An index may be `(draw, index)`: then everything random about
    the sample is a function of (seed, draw), whatever worker makes it and whenever.

    Args:
        data_root: the VOCdevkit folder.
        split: `train` or `test`.
        classes: names by label; None takes those that occur in the training split, sorted.
        seed: of the draws.
        pipeline: MMDetection's transforms.

    Raises:
        UserError: see `read_split`; a class occurs that `classes` lacks; an image cannot be read.
    """

    def __init__(self, data_root, split, classes=None, seed=0, pipeline=()):
        self.split, self.seed = split, seed
        devkit = find_devkit(data_root)
        self.annotations = read_split(devkit, split)
        if classes is None:
            classes = class_names(self.annotations if split == "train" else read_split(devkit, "train"))
        super().__init__(
            metainfo=dict(classes=tuple(classes)),
            data_root=str(devkit),
            pipeline=list(pipeline),
            test_mode=split == "test",
        )

    def load_data_list(self):
        """MMDetection's form of the annotations."""
        labels = {name: label for label, name in enumerate(self.metainfo["classes"])}
        check_classes(self.annotations, labels)
        infos = [self._info(annotation, labels) for annotation in self.annotations]
        return [info for info in infos if info["instances"] or self.test_mode]

    def _info(self, annotation: Annotation, labels: dict[str, int]) -> dict:
        def is_inside(box):
            x0, y0, x1, y1 = box
            return min(x1, annotation.width) > max(x0, 0) and min(y1, annotation.height) > max(y0, 0)

        return {
            "img_id": annotation.xml.stem,
            "img_path": str(annotation.image),
            "width": annotation.width,
            "height": annotation.height,
            "instances": [
                {
                    "bbox": list(box),
                    "bbox_label": labels[name],
                    "ignore_flag": int(difficult and self.test_mode),
                }
                for name, box, difficult in annotation.objects
                # Detectron2 drops empty boxes in training; every anchor would match one at an IoU of 0
                if self.test_mode or is_inside(box)
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
