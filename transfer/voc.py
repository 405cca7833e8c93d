"""A folder in the format of PASCAL VOC, with Detectron2's boxes.

    VOCdevkit/VOC2007/{Annotations/<id>.xml, JPEGImages/<id>.jpg, ImageSets/Main/{trainval,test}.txt}
    VOCdevkit/VOC2012/{…, ImageSets/Main/trainval.txt}

Every VOC20xx with a trainval trains, VOC2007 tests.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from mmengine.registry import DATASETS

from resim_bench.data.images import ENDINGS
from resim_bench.errors import UserError
from transfer.datasets import Annotation, DetectionFolder, Object, Split

HOW_TO_GET = "give a VOCdevkit folder by --data, or put PASCAL VOC 2007 and 2012 into data/VOCdevkit"


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


def read_split(devkit: Path, split: str) -> Split:
    """The images of a split, in the order of its files, and the names of the classes that occur, sorted.

    For PASCAL VOC these are its twenty classes in their usual order.

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
    return Split(annotations, tuple(sorted({o.name for annotation in annotations for o in annotation.objects})))


def _read_list(file: Path) -> Iterator[Annotation]:
    year = file.parents[2]
    images = {image.stem: image for image in (year / "JPEGImages").glob("*") if image.suffix.lower() in ENDINGS}
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8 ({error.reason}): save it as such") from None
    for line in lines:
        if not line.strip():
            continue
        # A name may have spaces; only where no image is named so, what follows the first one is a label.
        name = line.strip() if line.strip() in images else line.split()[0]
        if name not in images:
            raise UserError(f"{file} names '{name}', but there is no {year / 'JPEGImages' / name}.jpg")
        yield _read_xml(year / "Annotations" / f"{name}.xml", images[name])


def _read_xml(xml: Path, image: Path) -> Annotation:
    try:
        root = ElementTree.parse(xml).getroot()
        if root.tag != "annotation":
            raise ValueError(f"its root is <{root.tag}>, not <annotation>")
        size = root.find("size")
        return Annotation(
            xml.stem,
            image,
            xml,
            int(size.find("width").text),
            int(size.find("height").text),
            tuple(_read_object(node) for node in root.iterfind("object")),
        )
    except FileNotFoundError:
        raise UserError(f"there is no annotation {xml}: restore it, or take its image out of the list") from None
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError, LookupError, OSError) as error:
        raise UserError(f"{xml} is no annotation in VOC's format ({error}): repair or replace it") from None


def _read_object(node) -> Object:
    box = node.find("bndbox")
    xmin, ymin, xmax, ymax = (float(box.find(corner).text) for corner in ("xmin", "ymin", "xmax", "ymax"))
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or xmax < xmin - 1 or ymax < ymin - 1:
        raise ValueError(f"a box from {xmin:g}, {ymin:g} to {xmax:g}, {ymax:g}")
    difficult = node.find("difficult")
    return Object(
        node.find("name").text.strip(),
        (xmin - 1, ymin - 1, xmax, ymax),  # continuous, of 1-based inclusive corners, as Detectron2 reads them
        ignore=difficult is not None and (difficult.text or "").strip() == "1",
    )


@DATASETS.register_module()
class VOCFolder(DetectionFolder):
    """A VOC folder; difficult objects train, as in Detectron2, and are ignored in the test."""

    trains_on_ignored = True
    find = staticmethod(find_devkit)
    read = staticmethod(read_split)
