"""A folder in the layout of COCO 2017, with what Detectron2 trains on.

    coco/annotations/instances_{train,val}2017.json
    coco/{train,val}2017/<file name>

train2017 trains, val2017 tests. Classes are the categories of the annotation file, in the order of their ids.
"""

import hashlib
import json
from pathlib import Path

from mmengine.registry import DATASETS

from resim_bench.data.survey import Survey
from resim_bench.errors import UserError
from transfer.datasets import Annotation, DetectionFolder, Object, Split

HOW_TO_GET = "give a folder with annotations/, train2017/ and val2017/ by --data, or put COCO 2017 into data/coco"

_FOLDERS = {"train": "train2017", "test": "val2017"}
_OF_AN_OBJECT = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")


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


def read_split(root: Path, split: str) -> Split:
    """The images of a split, in the order of the annotation file, and its categories.

    Objects without a valid outline do not train, as in Detectron2.

    Args:
        root: the folder that holds `annotations`.
        split: `train` (train2017) or `test` (val2017).

    Raises:
        UserError: the annotation file or an image is missing, or the file is broken.
    """
    file, folder = annotation_file(root, split), Path(root) / _FOLDERS[split]
    content = _load(file)
    try:
        names = {category["id"]: category["name"] for category in content["categories"]}
        objects = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            objects[annotation["image_id"]] += _read_object(annotation, names, split)
        annotations = [
            Annotation(i["id"], folder / i["file_name"], file, i["width"], i["height"], tuple(objects[i["id"]]))
            for i in content["images"]
        ]
        if not annotations or len(set(names.values())) < len(names):
            raise ValueError("a category has two ids" if annotations else "it names no image")
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{error} is missing or not known" if isinstance(error, KeyError) else error
        raise UserError(f"{file} is not in COCO's format ({problem}): repair or replace it") from None
    present = {image.name for image in folder.glob("*")}
    for annotation in annotations:
        if annotation.image.name not in present:
            raise UserError(f"{file} names '{annotation.image.name}', but there is no {annotation.image}")
    survey = Survey(f"{root}, {split}", objects=0)
    lists = [f"{split}:{a.id}".encode() for a in annotations]
    parsed = [hashlib.sha256(file.read_bytes()).digest()]
    return Split(annotations, tuple(names[number] for number in sorted(names)), survey, lists, parsed)


def _load(file: Path) -> dict:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no {file}: {HOW_TO_GET}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}, perhaps it is cut short ({error}): get it again") from None


def _read_object(annotation: dict, names: dict[int, str], split: str) -> list[Object]:
    """The object, or none where it has no valid outline to train with.

    Raises:
        KeyError, TypeError, ValueError: what pycocotools or the training would stumble over.
    """
    missing = [key for key in _OF_AN_OBJECT if key not in annotation]
    if missing:
        raise ValueError(f"annotation {annotation.get('id')} has no {missing[0]}")
    mask, ignore, (x, y, width, height) = annotation["segmentation"], annotation["iscrowd"] == 1, annotation["bbox"]
    if isinstance(mask, list):
        mask = [outline for outline in mask if len(outline) >= 6 and len(outline) % 2 == 0]
    elif split == "train" and not ignore:
        raise ValueError(f"annotation {annotation['id']} is a run-length code, and only outlines train")
    if not mask and split == "test":
        raise ValueError(f"annotation {annotation['id']} has no valid outline")
    box = (x, y, x + width, y + height)
    return (
        [Object(names[annotation["category_id"]], box, ignore, mask, called=f"annotation {annotation['id']}")]
        if mask
        else []
    )


@DATASETS.register_module()
class COCOFolder(DetectionFolder):
    """A COCO folder; crowds do not train, and the metric reads the test's objects from their own file."""

    trains_on_ignored = False
    find = staticmethod(find_coco)
    read = staticmethod(read_split)
