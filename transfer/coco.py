"""A folder in the layout of COCO 2017, with what Detectron2 trains on.

    coco/annotations/instances_{train,val}2017.json
    coco/{train,val}2017/<file name>

train2017 trains, val2017 tests. Classes are the categories of the annotation file, in the order of their ids.
docs/data.md has the rules.
"""

import gc
import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from mmengine.registry import DATASETS
from pycocotools import mask as run_length

from resim_bench import files
from resim_bench.data.annotation import NUMBER
from resim_bench.errors import UserError
from transfer.datasets import FARTHEST, DetectionFolder, Gathered, Masks, Split, complete, owners_of
from transfer.detections import Images, Truth
from transfer.masks import as_coco, code_of, run_lengths

HOW_TO_GET = "give a folder with annotations/, train2017/ and val2017/ by --data, or put COCO 2017 into data/coco"
LARGEST = 1e10  # square pixels: pycocotools leaves out what is larger

_FOLDERS = {"train": "train2017", "test": "val2017"}
_CROWD = {None: False, 0: False, 1: True, "": False, "0": False, "1": True, "false": False, "true": True}
_NO_OUTLINE = "objects without an outline"
_NO_WHOLE_OUTLINE = "objects without an outline of three whole points"
_SHORT_OUTLINE = "outlines without three whole points"
_BAD_ANNOTATION = "annotations that cannot be used"


def annotation_file(root: Path, split: str) -> Path:
    """The file with the objects of `train` or `test`."""
    return Path(root) / "annotations" / f"instances_{_FOLDERS[split]}.json"


def find_coco(folder: Path) -> Path:
    """`folder` itself where it holds COCO's annotations, else the `coco` in it.

    Raises:
        UserError: neither holds them.
    """
    folder = Path(folder)
    for candidate in (folder, folder / "coco"):
        if (candidate / "annotations").is_dir():
            return candidate
    problem = "holds no annotations/" if folder.is_dir() else "does not exist"
    raise UserError(f"the COCO folder {folder} {problem}: {HOW_TO_GET}")


def read_split(root: Path, split: str, masks: bool | None = None, only: str | None = None) -> Split:
    """The images of a split, in the order of the annotation file, and its categories.

    Args:
        root: the folder that holds `annotations`.
        split: `train` (train2017) or `test` (val2017).
        masks: whether outlines are needed; None where any object has one.
        only: the one category that is a class; objects of the others are left out. None: all are.
    """
    root = Path(root)
    file, found = annotation_file(root, split), Gathered(root, split)
    with _uncollected():
        content = _load(found, file)
        classes, label_of = _categories(found, file, content["categories"], only)
        image_of = _images(found, file, content["images"])
        if masks is None:
            masks = any(isinstance(entry, dict) and entry.get("segmentation") for entry in content["annotations"])
        objects = _Objects(found, file, label_of, image_of, masks)
        objects.read(content.pop("annotations"))

    def name_image(i):
        return f"{file}: the image {found.names[i]}"

    def name_object(k):
        return _name(found.numbers[k]), f"{file}: {_name(found.numbers[k])}"

    done, order = complete(found, classes, "crowds", name_image, name_object)
    objects.finish(done, order)
    return done


@contextmanager
def _uncollected():
    """Without looking for cycles among millions of numbers, of which there are none: a third of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _load(found: Gathered, file: Path) -> dict[str, list]:
    """The three lists of the file; empty ones where it is none."""
    names = "images", "annotations", "categories"
    kind, nothing = "annotation files that cannot be read", {name: [] for name in names}
    try:
        content = files.read(file)
        found.annotations.append(hashlib.sha256(content).digest())
        read = json.loads(content)
    except FileNotFoundError:
        found.survey.fault(kind, file.name, f"there is no {file}: {HOW_TO_GET}")
        return nothing
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        found.survey.fault(kind, file.name, f"cannot read {file}, perhaps it is cut short ({why}): get it again")
        return nothing
    lists = {name: read[name] for name in names if isinstance(read.get(name), list)} if isinstance(read, dict) else {}
    problems = {
        "it is no object with images, annotations and categories": not isinstance(read, dict),
        **{f"it has no list of {name}": name not in lists for name in names},
        "it names no image": not lists.get("images"),
    }
    problem = next((problem for problem, there in problems.items() if there), None)
    if problem:
        found.survey.fault(kind, file.name, f"{file} is not in COCO's format ({problem}): repair or replace it")
    return nothing | lists


class _ById(dict):
    """By the ids of a list; also a number by its text, and the other way round, where that is one id alone."""

    def __missing__(self, key):
        if not hasattr(self, "by_text"):
            self.by_text = {str(known): value for known, value in self.items()}
            if len(self.by_text) < len(self):
                self.by_text = {}
        return self.by_text[str(key)]


def _is_id(number) -> bool:
    return isinstance(number, int | float | str) and number == number


def _add(ids: _ById, entry, value) -> None:
    """Note `value` by the id of an entry.

    Raises:
        ValueError: it has none, or one that another has.
    """
    number = entry.get("id") if isinstance(entry, dict) else None
    if not _is_id(number):
        raise ValueError("it has no id")
    if number in ids:
        raise ValueError(f"another has the id {number}, too")
    ids[number] = value


def _categories(found: Gathered, file: Path, entries: list, only: str | None) -> tuple[list[str], _ById]:
    """Names in the order of their ids, or the only one, and labels by id: -1 of one that is left out."""
    names, seen = _ById(), set()
    for entry in entries:
        try:
            _add(names, entry, "")
            name = _text(entry, "name")
            if name in seen:
                raise ValueError(f"another is called '{name}', too")
            seen.add(name)
            names[entry["id"]] = name
        except ValueError as error:
            found.survey.fault(
                "categories that cannot be used",
                _short(entry),
                f"{file}: the category {_short(entry)}: {error}: correct it",
            )
    if only:
        if entries and only not in seen:
            what = f"{file} lists no category '{only}', the one that is looked for: add it, or take another protocol"
            found.survey.fault("categories that are missing", only, what)
        return [only], _ById({number: 0 if name == only else -1 for number, name in names.items()})
    ordered = sorted(names, key=lambda number: (isinstance(number, str), number))
    return [names[number] for number in ordered], _ById({number: label for label, number in enumerate(ordered)})


def _text(entry: dict, key: str) -> str:
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"its {key} is {_short(text)}")
    return text.strip()


def _images(found: Gathered, file: Path, entries: list) -> _ById:
    """Gather the images; their places by id, -1 where there is a fault."""
    folder, places, files = found.root / _FOLDERS[found.split], _ById(), set()
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        if entries:
            what = f"{folder} cannot be read ({error.strerror}): {HOW_TO_GET}"
            found.survey.fault("folders that cannot be read", folder.name, what)
        ids = [entry.get("id") for entry in entries if isinstance(entry, dict)]
        return _ById({number: -1 for number in ids if _is_id(number)})
    kept = []
    for entry in entries:
        try:
            _add(places, entry, -1)
            name = _locate(folder, there, entry.get("file_name"))
            if name in files:
                raise ValueError("another is of the same file")
            files.add(name)
            size = _side(entry, "width"), _side(entry, "height")
        except ValueError as error:
            found.survey.fault(
                "images that cannot be used", _short(entry), f"{file}: the image {_short(entry)}: {error}: correct it"
            )
            continue
        except FileNotFoundError:
            name = entry["file_name"]
            found.survey.fault(
                "images that are missing",
                name,
                f"{file} names '{name}', but there is no {folder / name}: restore it, or take its entry out",
            )
            continue
        places[entry["id"]] = len(kept)
        kept.append(entry["id"])
        found.add_image(0, f"{folder.name}/{name}", f"annotations/{file.name}", size)
    # Results are put in the order of ids where those are numbers: it decides between detections of equal score.
    ordered = sorted(kept) if all(isinstance(number, int) for number in kept) else kept
    rank = {number: place for place, number in enumerate(ordered, 1)}
    found.ids = [rank[number] for number in kept]
    found.lists += [os.fsencode(name) for name in found.names]
    return places


def _locate(folder: Path, there: set[str], name) -> str:
    """Where a file_name is below the folder: there, or where its last part is, if only that is.

    Raises:
        ValueError: it is no name of a file in the folder.
        FileNotFoundError: there is no such file.
    """
    if not isinstance(name, str) or not name.strip("./\\ ") or "\0" in name:
        raise ValueError(f"its file_name is {_short(name)}")
    if name in there:
        return name
    for spelt in dict.fromkeys((name, name.replace("\\", "/"))):
        path = PurePosixPath(spelt)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"its file_name {_short(name)} leaves {folder}")
        if _exists(folder / path):
            return str(path)
        if path.name in there:
            return path.name
    raise FileNotFoundError


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a lone surrogate that no file system has
        return False


def _side(entry: dict, side: str) -> float:
    """Width or height, 0 where there is none."""
    given = entry.get(side)
    number = 0.0 if given in (None, "") else _number(given, side)
    if not 0 <= number < float("inf") or number % 1:
        raise ValueError(f"its {side} is {_short(given)}")
    return number


def _number(value, what: str) -> float:
    """A number, or the text of one.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"has {_short(value)} for {what}, which is a number")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _short(value) -> str:
    """A piece of JSON for a sentence: an entry by its id."""
    if isinstance(value, dict) and "id" in value:
        value = value["id"]
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}…"


def _name(number) -> str:
    """What an annotation is called: by its id, or by its place in the file where that stands in brackets."""
    return f"annotation number {number[0]}" if isinstance(number, list) else f"annotation {number}"


class _Objects:
    """Gathers annotations, with their outlines where those are needed.

    Args:
        found: what is gathered.
        file: where it is.
        label_of, image_of: by the ids of categories and images.
        masks: whether outlines are needed.
    """

    def __init__(self, found: Gathered, file: Path, label_of: _ById, image_of: _ById, masks: bool):
        self.found, self.file, self.label_of, self.image_of = found, file, label_of, image_of
        self.masks, self.training = masks, found.split == "train"
        self.points, self.ends, self.outlines = array("d"), array("q", [0]), array("q")
        self.extents, self.areas = array("d"), array("d")
        self.run_lengths: dict[int, dict] = {}
        self.covered: dict[int, list[int]] = {}  # by object, what its run-length code says of its image's size

    def read(self, entries: list) -> None:
        """Gather all; each is let go once it is, so that millions of numbers need not be there twice."""
        known: set = set()
        entries.reverse()
        for position in range(1, len(entries) + 1):
            entry, number = entries.pop(), [position]
            try:
                if not isinstance(entry, dict):
                    raise ValueError("is no object with image_id, category_id and bbox")
                if entry.get("id") is not None:
                    if not _is_id(entry["id"]):
                        raise ValueError("has no id that is a number or text")
                    number = entry["id"]
                    if number in known:
                        raise ValueError("is there twice")
                    known.add(number)
                self._read(entry, number)
            except ValueError as error:
                self._fault(number, str(error))

    def _fault(self, number, problem: str) -> None:
        name = _name(number)
        sentence = f"{self.file}: {name} {problem}: correct it, or take it out"
        self.found.survey.fault(_BAD_ANNOTATION, name, sentence)

    def _read(self, entry: dict, number) -> None:
        """Gather an annotation.

        Raises:
            ValueError: says what is wrong with it.
        """
        owner = self._look_up(self.image_of, entry, "image_id", "image")
        label = self._look_up(self.label_of, entry, "category_id", "category")
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"has {_short(box)} for bbox, which is [x, y, width, height]")
        x, y, width, height = [side if type(side) is float else _number(side, "bbox") for side in box]
        crowd, area = self._crowd(entry.get("iscrowd")), entry.get("area")
        if area is not None:
            area = _number(area, "area")
            if not 0 <= area <= LARGEST:
                raise ValueError(f"has an area of {area:g}, which is a number from 0 to {LARGEST:g}")
        outlines = self._outlines(entry.get("segmentation"))
        if owner < 0 or label < 0:
            return  # its image is at fault, or its category is left out
        self.found.add_object(owner, label, (x, y, x + width, y + height), crowd, number)
        if not self.training:
            self.extents.extend((width, height))
            self.areas.append(-1 if area is None else area)
        self._add_outlines(outlines, crowd, number)

    def _look_up(self, index: _ById, entry: dict, key: str, what: str) -> int:
        try:
            return index[entry[key]]
        except (KeyError, TypeError):
            if key in entry:
                raise ValueError(f"is of {what} {_short(entry[key])}, which is not listed") from None
            raise ValueError(f"has no {key}") from None

    def _crowd(self, given) -> bool:
        try:
            return _CROWD[given.lower() if isinstance(given, str) else given]
        except (KeyError, TypeError):
            raise ValueError(f"has {_short(given)} for iscrowd, which is 0 or 1") from None

    def _outlines(self, given) -> list | dict:
        """The segmentation as outlines of any numbers, or a run-length code that is whole.

        Raises:
            ValueError: it is neither.
        """
        if given is None or given in ([], {}, ""):
            return []
        if isinstance(given, dict):
            problem = run_length_problem(given)
            if problem:
                raise ValueError(f"has a run-length code {problem}")
            return given
        if isinstance(given, list):
            given = given if isinstance(given[0], list) else [given]
            if all(isinstance(outline, list) for outline in given):
                try:
                    return [array("d", outline) for outline in given]
                except (TypeError, OverflowError):
                    return [[_number(place, "segmentation") for place in outline] for outline in given]
        raise ValueError(f"has {_short(given)} for segmentation, which is a list of outlines or a run-length code")

    def _add_outlines(self, outlines: list | dict, crowd: bool, number) -> None:
        """Gather the segmentation of the object that was added last.

        Raises:
            ValueError: it is not one that can be trained or tested.
        """
        k = len(self.found.owners) - 1
        if isinstance(outlines, dict):
            self.covered[k] = outlines["size"]
            if self.masks and self.training and not crowd:
                raise ValueError("is a run-length code, and only outlines train")
            if self.masks and not self.training:
                self.run_lengths[k] = outlines
            outlines = []
        elif self.training and crowd:
            outlines = []  # it does not train
        else:
            outlines = self._whole(outlines, number)
        if self.masks:
            begin = len(self.ends) - 1
            for outline in outlines:
                self.points.extend(outline)
                self.ends.append(len(self.points))
            self.outlines.extend((begin, len(self.ends) - 1))

    def _whole(self, outlines: list, number) -> list:
        """Those of three whole points; notes what is missing of the object that was added last.

        Raises:
            ValueError: an outline of the test is none, or there is none.
        """
        whole = [outline for outline in outlines if len(outline) >= 6 and len(outline) % 2 == 0]
        if self.training:
            if not whole and (outlines or self.masks):
                self.found.leave_out(_NO_WHOLE_OUTLINE if outlines else _NO_OUTLINE)
            elif self.masks:
                for _ in range(len(outlines) - len(whole)):
                    self.found.survey.leave_out(_SHORT_OUTLINE, _name(number))
        elif self.masks and len(whole) < max(len(outlines), 1):
            raise ValueError("has an outline without three whole points" if outlines else "has no outline")
        return whole

    def finish(self, split: Split, order: np.ndarray) -> None:
        """Put what is COCO's own beside the columns of `split`, once it is held against the images."""
        if split.survey.faults:
            return
        for k, size in self.covered.items():
            width, height = split.sizes[self.found.owners[k]].tolist()
            if size != [height, width]:
                problem = f"has a run-length code of {size}, and its image is [{height}, {width}]"
                self._fault(self.found.numbers[k], problem)
        owners = owners_of(split.first)
        if self.masks:
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            run_lengths = {int(place[k]): code for k, code in self.run_lengths.items()}
            outlines = np.array(self.outlines, np.int64).reshape(-1, 2)[order]
            split.masks = Masks(np.array(self.points), np.array(self.ends), outlines, run_lengths)
            self._check_outlines(split, order, owners)
        if not self.training:
            split.extents = np.array(self.extents).reshape(-1, 2)[order]
            split.areas = np.array(self.areas)[order]
            if not split.survey.faults:
                for k in np.flatnonzero(split.areas < 0).tolist():
                    split.areas[k] = _area(split, k, owners[k])

    def _check_outlines(self, split: Split, order: np.ndarray, owners: np.ndarray) -> None:
        """Refuse outlines that are not finite or far beyond the image: their masks would fill the memory."""
        points, starts = split.masks.points.reshape(-1, 2), split.masks.ends[:-1] // 2
        if not len(points):
            return
        lowest, highest = (of.reduceat(points, starts) for of in (np.minimum, np.maximum))
        # The outlines of an object stand beside each other, so that each has one owner.
        begin, end = split.masks.outlines.T
        mine = np.empty(len(starts), np.int64)
        for k in np.flatnonzero(end > begin).tolist():
            mine[begin[k] : end[k]] = k
        size = np.minimum(split.sizes[owners[mine]], FARTHEST)
        fits = (lowest >= -size) & (highest <= 2 * size)
        for k in np.unique(mine[~fits.all(1)]).tolist():
            self._fault(self.found.numbers[order[k]], "has an outline that is not finite, or far beyond its image")


def _area(split: Split, k: int, owner: int) -> float:
    """That of an object without one: of its mask, or of its box where there is no mask."""
    mask = split.masks[k] if split.masks else None
    if not mask:
        return float(split.extents[k].prod())
    size = split.sizes[owner, ::-1].tolist()
    return float(run_length.area(as_coco(code_of(mask, size), size)))


def run_length_problem(code: dict) -> str:
    """What is wrong with a run-length code, as a sentence goes on; nothing where it covers its size.

    pycocotools' own decoder reads and writes past what it was given where the code is broken.
    """
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return f"whose size is {_short(size)}, and not [height, width]"
    if isinstance(counts, str):
        try:
            counts = run_lengths([counts.encode()])[0].tolist()
        except ValueError:
            counts = None
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        return "whose counts are broken"
    if sum(counts) != size[0] * size[1]:
        return f"that covers {sum(counts)} of {size[0] * size[1]} pixels"
    return ""


def file_names(split: Split) -> list[str]:
    """What results call the images of a split: as their files are below its folder."""
    return [name.partition("/")[2] for name in split.names]


def ground_truth(split: Split, classes: Sequence[str], with_masks: bool) -> tuple[Images, Truth]:
    """What a test has to find, as it was read, images in the order of their ids; labels are those of `classes`."""
    order = np.argsort(split.ids)
    rank, label = np.empty_like(order), np.array([classes.index(c) if c in classes else -1 for c in split.classes], int)
    rank[order] = np.arange(len(order))
    owners, sizes = owners_of(split.first), split.sizes[:, ::-1]
    names = file_names(split)
    images = Images([names[i] for i in order], sizes[order])
    codes = None
    if with_masks:
        codes = [code_of(split.masks[k], sizes[i].tolist()) for k, i in enumerate(owners.tolist())]
    return images, Truth(rank[owners], label[split.labels], split.boxes, split.ignored, split.areas, codes)


@DATASETS.register_module()
class COCOFolder(DetectionFolder):
    """A COCO folder; crowds do not train, and the metric gets the test's objects as they were read here."""

    metric = "COCOAveragePrecision"
    has_outlines = True
    ground_truth = staticmethod(ground_truth)
    result_names = staticmethod(file_names)
    find = staticmethod(find_coco)
    read = staticmethod(read_split)


@DATASETS.register_module()
class COCOPersons(COCOFolder):
    """A COCO folder whose one class is person: for images too few to tell 80 apart."""

    read = staticmethod(partial(read_split, only="person"))
