"""A folder in the format of PASCAL VOC, with Detectron2's boxes.

    VOCdevkit/VOC2007/{Annotations/<id>.xml, JPEGImages/<id>.jpg, ImageSets/Main/{trainval,test}.txt}
    VOCdevkit/VOC2012/{…, ImageSets/Main/trainval.txt}

Every VOC20xx with a trainval trains, VOC2007 tests.
"""

import codecs
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from mmengine.registry import DATASETS

from resim_bench.data.images import ENDINGS
from resim_bench.data.survey import Survey
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
        UserError: there is no such split; what is wrong with its images and annotations is in the survey.
    """
    devkit = Path(devkit)
    years = _years(devkit) if split == "train" else [devkit / "VOC2007"]
    name = {"train": "trainval.txt", "test": "test.txt"}[split]
    lists = [year / "ImageSets" / "Main" / name for year in years]
    present = [file for file in lists if file.is_file()]
    if not present:
        wanted = devkit / "VOC2007" / "ImageSets" / "Main" / name
        raise UserError(f"there is no {wanted}: {HOW_TO_GET}")
    survey = Survey(f"{devkit}, {split}", objects=0)
    found = Split([], (), survey, [], [])
    for file in present:
        for image in _listed(file, split, survey):
            found.lists.append(os.fsencode(f"{split}:{image.stem}"))
            xml = file.parents[2] / "Annotations" / f"{image.stem}.xml"
            content = _content(xml, survey)
            if content is None:
                continue
            found.parsed.append(hashlib.sha256(content).digest())
            annotation = read_xml(content, xml, image, survey)
            if annotation:
                found.annotations.append(annotation)
    if not found.lists and not survey.faults:
        raise UserError(f"{present[0]} names no image: {HOW_TO_GET}")
    classes = {o.name for annotation in found.annotations for o in annotation.objects}
    return found._replace(classes=tuple(sorted(classes)))


def _listed(file: Path, split: str, survey: Survey) -> Iterator[Path]:
    """The images that a list names; what it names wrongly, or twice, goes into the survey."""
    folder = file.parents[2] / "JPEGImages"
    images, seen = _Images(folder), set()
    for line in _lines(file):
        name, found = images.named(line)
        if len(found) != 1:
            shown = name if _is_text(name) else f"{name} (no UTF-8)"
            if found:
                kind, fix = "images of one name", f"keep one of {' and '.join(sorted(image.name for image in found))}"
                survey.fault(kind, shown, f"{file} names '{shown}', which several files in {folder} are called: {fix}")
            else:
                problem = f"there is no {folder / shown}.jpg: restore it, or take it out of the list"
                survey.fault("missing images", shown, f"{file} names '{shown}', but {problem}")
        elif found[0] not in seen:
            seen.add(found[0])
            yield found[0]
        elif split == "test":
            sentence = f"{file} names '{name}' twice: take one out, or the test would count it twice"
            survey.fault("images listed twice", name, sentence)
        else:
            survey.leave_out("second mentions of an image", name)


class _Images:
    """The images of a year, by what a list may call them."""

    def __init__(self, folder: Path):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be read ({error.strerror}): allow it") from None
        self._by_file = {file.name: file for file in map(folder.joinpath, names) if file.suffix.lower() in ENDINGS}
        self._by_stem: Mapping[str, list[Path]] = defaultdict(list)
        for file in self._by_file.values():
            self._by_stem[file.stem].append(file)
        self._annotations = folder.with_name("Annotations")

    def named(self, line: str) -> tuple[str, Sequence[Path]]:
        """The name in a line of a list, and the files that it may mean.

        A name may have spaces and an ending. Only where the line names no image and no annotation, a number at its end
        is a label, as in the lists of VOC's single classes.
        """
        found = self._called(line)
        labelled = re.fullmatch(r"(.*\S)\s+[-+]?\d+", line)
        if not found and labelled and not (self._annotations / f"{line}.xml").exists():
            found = self._called(labelled[1])
            line = labelled[1] if found else line
        return line, found

    def _called(self, name: str) -> Sequence[Path]:
        if name in self._by_stem:
            return self._by_stem[name]
        return [self._by_file[name]] if name in self._by_file else []


def _lines(file: Path) -> list[str]:
    """The lines of a list that are not blank.

    A name need not be text: bytes that are no UTF-8 stand for themselves, as in the names of files.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): allow it, or restore the file") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16") if wide else os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8 ({error.reason}): save it as such") from None
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _content(xml: Path, survey: Survey) -> bytes | None:
    """The bytes of an annotation, None where it cannot be read."""
    try:
        return xml.read_bytes()
    except FileNotFoundError:
        fix = "restore it, or take its image out of the list"
        survey.fault("missing annotations", xml.name, f"there is no annotation {xml}: {fix}")
    except OSError as error:
        survey.fault("annotations that cannot be read", xml.name, f"{xml} cannot be read ({error.strerror}): allow it")
    return None


def read_xml(content: bytes, xml: Path, image: Path, survey: Survey) -> Annotation | None:
    """An annotation file's content; None, and a fault in the survey, where it is none.

    Args:
        content: of the file `xml`, which annotates the file `image`.
    """
    called = ""
    try:
        root = ElementTree.fromstring(content)
        if root.tag != "annotation":
            raise ValueError(f"its root is <{root.tag}>, not <annotation>")
        size, objects = root.find("size"), []
        width, height = (_side(size, name) for name in ("width", "height"))
        for number, node in enumerate(root.iterfind("object"), 1):
            called = f"object {number}"
            objects.append(_read_object(node, called))
        return Annotation(xml.stem, image, xml, width, height, tuple(objects))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        problem = f"{called}: {error}" if called else error
        sentence = f"{xml} is no annotation in VOC's format ({problem}): repair or replace it"
        survey.fault("annotations that cannot be used", xml.name, sentence)
        return None


def _text(node, name: str) -> str:
    """What an element holds, without space around it; empty where it is missing."""
    element = None if node is None else node.find(name)
    return "" if element is None else (element.text or "").strip()


def _side(size, name: str) -> int | None:
    """A side of the image, in pixels; None where it is not annotated."""
    text = _text(size, name)
    if not text:
        return None
    side = _number(text, name)
    if not side.is_integer():  # not finite ones neither
        raise ValueError(f"its {name} is '{text}'")
    return int(side)


def _number(text: str, name: str) -> float:
    try:
        if "_" in text:  # which Python reads over
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"its {name} is '{text}'" if text else f"it has no {name}") from None


_IS_DIFFICULT = {"": False, "0": False, "false": False, "1": True, "true": True}


def _read_object(node, called: str) -> Object:
    name, difficult, box = _text(node, "name"), _text(node, "difficult"), node.find("bndbox")
    if not name:
        raise ValueError("it has no name")
    if difficult.lower() not in _IS_DIFFICULT:
        raise ValueError(f"its difficult is '{difficult}', not 0 or 1")
    xmin, ymin, xmax, ymax = (_number(_text(box, corner), corner) for corner in ("xmin", "ymin", "xmax", "ymax"))
    return Object(
        name,
        (xmin - 1, ymin - 1, xmax, ymax),  # continuous, of 1-based inclusive corners, as Detectron2 reads them
        ignore=_IS_DIFFICULT[difficult.lower()],
        called=f"{called} ('{name}')",
    )


@DATASETS.register_module()
class VOCFolder(DetectionFolder):
    """A VOC folder; difficult objects train, as in Detectron2, and are ignored in the test."""

    trains_on_ignored = True
    find = staticmethod(find_devkit)
    read = staticmethod(read_split)
