"""A folder in the format of PASCAL VOC, with Detectron2's boxes.

    VOCdevkit/VOC2007/{Annotations/<id>.xml, JPEGImages/<id>.jpg, ImageSets/Main/{trainval,test}.txt}
    VOCdevkit/VOC2012/{…, ImageSets/Main/trainval.txt}

Every VOC20xx with a trainval trains, VOC2007 tests. docs/data.md has the rules.
"""

import hashlib
import os
import re
from pathlib import Path

from mmengine.registry import DATASETS

from resim_bench import files
from resim_bench.data.annotation import content_of, image_file, read_list, read_object, read_root, read_side
from resim_bench.errors import UserError
from transfer.datasets import DetectionFolder, Gathered, Split, complete

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


def read_split(devkit: Path, split: str, masks: bool | None = None) -> Split:
    """The images of a split, in the order of its files, and the names of the classes that occur, sorted.

    For PASCAL VOC these are its twenty classes in their usual order.

    Args:
        devkit: the folder that holds VOC2007 and perhaps other years.
        split: `train` (the trainval of every year) or `test` (VOC2007's test).
        masks: VOC's layout has no outlines.
    """
    devkit = Path(devkit)
    found, numbers = Gathered(devkit, split, origin=1), {}
    years = _years(devkit) if split == "train" else [devkit / "VOC2007"]
    name = {"train": "trainval.txt", "test": "test.txt"}[split]
    lists = [year / "ImageSets" / "Main" / name for year in years]
    present = [file for file in lists if os.path.lexists(file)]
    if not present:
        wanted = devkit / "VOC2007" / "ImageSets" / "Main" / name
        found.survey.fault("lists that are missing", name, f"there is no {wanted}: {HOW_TO_GET}")
    for file in present:
        _read_list(found, file, numbers)
    if present and not found.names and not found.survey.faults:
        found.survey.fault("lists that are empty", name, f"{present[0]} names no image: {HOW_TO_GET}")

    classes = sorted(numbers)
    label = {numbers[name]: place for place, name in enumerate(classes)}
    for k, number in enumerate(found.labels):
        found.labels[k] = label[number]

    def name_image(i):
        return os.path.join(devkit, found.sources[i])

    def name_object(k):
        owner, name = found.owners[k], f"{found.numbers[k]} ('{classes[found.labels[k]]}')"
        return f"{found.sources[owner]}: {name}", f"{name_image(owner)}: {name}"

    return complete(found, classes, "", name_image, name_object)[0]


def _read_list(found: Gathered, file: Path, numbers: dict[str, int]) -> None:
    """Gather the images of a list; `numbers` are those of the class names so far."""
    survey, year = found.survey, file.parents[2]
    shown = os.path.relpath(file, found.root)
    try:
        content, listed = read_list(file)
    except UnicodeDecodeError as error:
        survey.fault("lists that are no text", shown, f"{file} is no text ({error.reason}): save it as UTF-8")
        return
    except OSError as error:
        what = f"{error.filename} cannot be read ({error.strerror}): restore it, or allow it"
        survey.fault("lists and folders that cannot be read", shown, what)
        return
    found.lists += [os.fsencode(shown), content]
    seen = set()
    for name, stem, entries in listed:
        if not entries:
            survey.fault(
                "names without an image",
                f"{shown}: {name}",
                f"{file} names '{name}', but there is no {year / 'JPEGImages' / name}.jpg: restore it, or take it out",
            )
            continue
        if stem in seen:
            if found.split == "train":
                survey.leave_out("names that a list repeats", f"{shown}: {name}")
            else:
                sentence = f"{file} names '{name}' twice: take one out, or the test would count it twice"
                survey.fault("names that a list repeats", f"{shown}: {name}", sentence)
            continue
        seen.add(stem)
        _read_image(found, year, stem, entries, numbers)


def _read_image(found: Gathered, year: Path, stem: str, entries: list[str], numbers: dict[str, int]) -> None:
    """Gather a listed image, of which one of `entries` may be the file."""
    xml = year / "Annotations" / f"{stem}.xml"
    shown = os.path.relpath(xml, found.root)
    try:
        content = files.read(xml)
        root = read_root(content)
        image = image_file(year / "JPEGImages", entries, lambda: content_of(root, "filename"))
        size = read_side(root, "width"), read_side(root, "height")
    except FileNotFoundError:
        found.survey.fault(
            "images without an annotation",
            shown,
            f"there is no annotation {xml}: restore it, or take its image out of the list",
        )
        return
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        found.survey.fault(
            "annotations that cannot be read",
            shown,
            f"{xml} is no annotation in VOC's format ({why}): repair or replace it",
        )
        return
    found.annotations += [os.fsencode(shown), hashlib.sha256(content).digest()]
    found.add_image(stem, os.path.relpath(image, found.root), shown, size)
    for index, node in enumerate(root.iterfind("object"), 1):
        try:
            label, box, difficult = read_object(node)
        except ValueError as error:
            found.survey.fault(
                "objects that cannot be read",
                f"{shown}: object {index}",
                f"{xml}: object {index} {error}: correct it, or take the object out",
            )
            continue
        number = numbers.setdefault(label, len(numbers))
        found.add_object(len(found.names) - 1, number, box, difficult, f"object {index}")


@DATASETS.register_module()
class VOCFolder(DetectionFolder):
    """A VOC folder; difficult objects train, as in Detectron2, and are ignored in the test."""

    metric = "VOCAveragePrecision"
    find = staticmethod(find_devkit)
    read = staticmethod(read_split)
