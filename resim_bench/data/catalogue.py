"""The data sets that the experiments need: where they are looked for, what is there, and where to get the rest."""

import fnmatch
import json
import os
import textwrap
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

from resim_bench.data import imagenet100
from resim_bench.experiments import reported_tables

VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
COCO = "http://images.cocodataset.org"  # its certificate is for another name, so no https: the checksum decides


class Archive(NamedTuple):
    """A file to download: its address, MD5 and size in bytes, and the folder in it that holds the part."""

    url: str
    md5: str
    size: int
    inside: str


class Part(NamedTuple):
    """A piece of a data set that is present or not on its own."""

    title: str
    ids: str  # the pre-training or transfer ids that need it, as a pattern
    folder: str  # below the folder of all data
    size: int  # bytes on disk, roughly
    # Of its folder: "" where it is complete, "missing" or "incomplete: …" where files can be added, else what is wrong.
    problem: Callable[[Path], str]
    archive: Archive | None = None


def problem_of_voc(folder: Path, split: str, expected: int) -> str:
    """Hold a VOC20xx folder against the list of its split: each image and each annotation that it names is there."""
    file = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        return "missing"
    names = {line.split()[0] for line in os.fsdecode(file.read_bytes()).splitlines() if line.strip()}
    if len(names) != expected:
        return f"another list: {len(names)} instead of {expected} images"
    images, annotations = _stems(folder / "JPEGImages", ".jpg"), _stems(folder / "Annotations", ".xml")
    return _too_few(len(names & images), expected, "images") or _too_few(
        len(names & annotations), expected, "annotations"
    )


def problem_of_images(folder: Path, expected: int) -> str:
    """Count a folder's images; more than expected do no harm, since annotations name the ones that are used."""
    return _too_few(len(_stems(folder, ".jpg")), expected, "images") if folder.is_dir() else "missing"


def problem_of_files(folder: Path, sizes: dict[str, int]) -> str:
    """Compare the sizes in bytes of the files that are used."""
    found = {name: (folder / name).stat().st_size for name in sizes if (folder / name).is_file()}
    wrong = [name for name in found if found[name] != sizes[name]]
    if not found:
        return "missing"
    return _too_few(len(found), len(sizes), "files") or (f"wrong size: {wrong[0]}" if wrong else "")


def problem_of_classes(
    folder: Path, classes: int, expected: int, listed: Collection[str] | None = None, named: str = "n????????"
) -> str:
    """Count the folders of an ImageFolder, all that are `named` so (wnids) or a list's, and the images in them."""
    if not folder.is_dir():
        return "missing"
    wnids = {name for name in os.listdir(folder) if fnmatch.fnmatchcase(name, named)}
    wnids = wnids if listed is None else wnids & set(listed)
    images = sum(len(_stems(folder / wnid, ".jpeg", ".jpg")) for wnid in wnids)
    return (
        _too_few(len(wnids), classes, "classes")
        or _too_few(images, expected, "images")
        or (f"{images} instead of {expected} images" if images > expected else "")
    )


def problem_of_scenes(folder: Path) -> str:
    """Count the pre-training images against what `scenes.write` says it wrote."""
    if not (folder / "scenes.json").is_file():
        return "missing"
    try:
        written = int(json.loads((folder / "scenes.json").read_bytes())["images"]["pretrain"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "scenes.json is damaged: remove the folder"
    return _too_few(len(_stems(folder / "imagefolder" / "train" / "scenes", ".jpg")), written, "images")


def _too_few(found: int, expected: int, what: str) -> str:
    return f"incomplete: lacks {expected - found} of {expected} {what}" if found < expected else ""


def _stems(folder: Path, *endings: str) -> set[str]:
    """Return the names of a folder's files of these endings, without them; listing is all that a million allow."""
    if not folder.is_dir():
        return set()
    return {stem for stem, ending in map(os.path.splitext, os.listdir(folder)) if ending.lower() in endings}


def _voc(year: int, split: str, images: int, file: str, md5: str, size: int) -> Part:
    folder = f"VOCdevkit/VOC{year}"
    return Part(
        title=f"VOC{year} {split}",
        ids="voc-*",
        folder=folder,
        size=size * 21 // 20,  # 70 000 small files fill their last blocks only in part
        problem=partial(problem_of_voc, split=split, expected=images),
        archive=Archive(f"{VOC}/voc{year}/{file}", md5, size, folder),
    )


def _coco(folder: str, path: str, md5: str, size: int, on_disk: int, problem: Callable[[Path], str]) -> Part:
    return Part(f"COCO {folder}", "coco-*", f"coco/{folder}", on_disk, problem, Archive(COCO + path, md5, size, folder))


# MD5 of VOC and ImageNet: torchvision.datasets 0.26. MD5 of COCO and all sizes: many public repositories agree.
# Image counts: the data sets' own pages.
DATA_SETS: dict[str, list[Part]] = {
    "voc": [
        _voc(2007, "trainval", 5011, "VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", 460_032_000),
        _voc(2007, "test", 4952, "VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", 451_020_800),
        _voc(2012, "trainval", 11540, "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", 1_999_639_040),
    ],
    "coco": [
        _coco(
            "annotations",
            "/annotations/annotations_trainval2017.zip",
            "f4bbac642086de4f52a3fdda2de5fa2c",
            252_907_541,
            834_416_290,
            partial(
                problem_of_files,
                sizes={"instances_train2017.json": 469_785_474, "instances_val2017.json": 19_987_840},
            ),
        ),
        _coco(
            "val2017",
            "/zips/val2017.zip",
            "442b8da7639aecaf257c1dceb8ba8c80",
            815_585_330,
            830_000_000,
            partial(problem_of_images, expected=5000),
        ),
        _coco(
            "train2017",
            "/zips/train2017.zip",
            "cced6f7f71b7629ddf16f17bbcfab6b2",
            19_336_861_798,
            19_700_000_000,
            partial(problem_of_images, expected=118287),
        ),
    ],
    "imagenet": [
        Part(
            "IN-100",
            "in100-*",
            "imagenet/train",
            14_700_000_000,
            partial(problem_of_classes, classes=100, expected=126689, listed=imagenet100()),
        ),
        Part(
            "ImageNet-1k",
            "in1k-*",
            "imagenet/train",
            147_900_000_000,
            partial(problem_of_classes, classes=1000, expected=1281167),
        ),
    ],
    "mini": [Part("generated scenes", "mini-*", "mini", 22_000_000, problem_of_scenes)],
    "photos": [
        Part(
            "Caltech-101",
            "photos-*",
            "caltech101/train",
            66_000_000,
            partial(problem_of_classes, classes=101, expected=7276, named="*"),
        ),
        Part(
            "playing cards",
            "photos-*",
            "cards/VOCdevkit/VOC2007",
            17_000_000,
            partial(problem_of_voc, split="trainval", expected=296),
        ),
        Part(
            "a part of COCO",
            "photos-*",
            "coco_small/train2017",
            13_000_000,
            partial(problem_of_images, expected=208),
        ),
    ],
}
HOW_TO_GET = {
    "voc": "`resim-bench data get voc` downloads {:.1f} GB",
    "coco": "`resim-bench data get coco` downloads {:.1f} GB",
    "imagenet": "`resim-bench data get imagenet` says how to get it",
    "mini": "`resim-bench mini` generates the scenes",
    "photos": "docs/controls.md says what the photographs are; your own will do",
}


def report(root: Path = Path("data")) -> str:
    """Describe each part of the data in a line, the tables that need it, and how to get the rest.

    Names and numbers of files are compared, and sizes of COCO's annotations; no image is opened.
    """
    root = Path(root)
    rows = [("data", "for", "folder", " on disk", "status")]
    lacking: dict[str, int] = {}  # the bytes that each incomplete data set takes to download
    for name, parts in DATA_SETS.items():
        for part in parts:
            problem = part.problem(root / part.folder)
            if problem:
                lacking[name] = lacking.get(name, 0) + (part.archive.size if part.archive else 0)
            size = f"{part.size / 1e9:5.1f} GB"
            rows.append((part.title, part.ids, part.folder, size, problem or "present, verified"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines[:0] = [f"looked for in {root}", ""]
    lines += ["", "which tables need it"]
    for ids in dict.fromkeys(part.ids for parts in DATA_SETS.values() for part in parts):
        named = ", ".join(_tables(ids)) or "none"
        lines += textwrap.wrap(f"  {ids:10}{named}", 100, subsequent_indent=" " * 12, break_on_hyphens=False)
    if lacking:
        lines += ["", "how to get the rest"]
        lines += [f"  {HOW_TO_GET[name].format(size / 1e9)}" for name, size in lacking.items()]
    return "\n".join(lines) + "\n"


def _tables(ids: str) -> list[str]:
    """Return the tables with a row that names such an id."""
    return [
        name
        for name, table in reported_tables().items()
        if any(fnmatch.fnmatchcase(row.get(key, ""), ids) for row in table["rows"] for key in ("pretrain", "transfer"))
    ]
