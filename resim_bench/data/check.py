"""`resim-bench data check`: what a reader finds in a folder, all faults at once, without any training."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from resim_bench.data import images
from resim_bench.data.survey import Survey
from resim_bench.errors import UserError, one_line


class Part(NamedTuple):
    """What a reader found: the survey of a split or of a folder of images, and the paths of its images."""

    survey: Survey
    images: Sequence[str]


LAYOUTS = {"voc": "a VOC devkit", "coco": "a COCO folder", "imagefolder": "an ImageFolder"}
YEAR = re.compile(r"VOC20\d\d")
INSTANCES = re.compile(r"instances_.*\.json")


def guess(folder: Path) -> str:
    """Which of `LAYOUTS` a folder has.

    Raises:
        UserError: it is no folder, or it is not clear.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise UserError(f"there is no folder {folder}: name the folder of a data set")
    try:
        looks = _annotated(folder)
        inside = [folder / name for name in _names(folder)]
        folders = [path for path in inside if os.path.isdir(path)]
        has_classes = bool(folders) and not any(map(_annotated, folders))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): allow it") from None
    if (has_classes and not looks) or any(path.suffix.lower() in images.ENDINGS for path in inside):
        looks.append("imagefolder")
    if len(looks) != 1:
        found = " and as ".join(LAYOUTS[layout] for layout in looks)
        problem = f"can be read as {found}" if looks else f"looks like none of {', '.join(LAYOUTS.values())}"
        raise UserError(f"{folder} {problem}: say which it is by --as voc, coco or imagefolder")
    return looks[0]


def _annotated(folder: Path) -> list[str]:
    """The layouts that a folder has the annotations of."""
    has_years = any(YEAR.fullmatch(name) for place in (folder, folder / "VOCdevkit") for name in _names(place))
    has_instances = any(INSTANCES.fullmatch(name) for name in _names(folder / "annotations"))
    return [layout for layout, there in (("voc", has_years), ("coco", has_instances)) if there]


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def check(
    folder: Path, layout: str | None, readers: Mapping[str, Callable[[Path], Sequence[Part]]], decode: bool
) -> int:
    """Print what is in a folder of data.

    Args:
        layout: of `LAYOUTS`; None guesses it.
        readers: for each layout, what reads such a folder.
        decode: whether to read every pixel.

    Returns:
        0 where the data can be used, 2 where they cannot; the last line says which.

    Raises:
        UserError: there is no folder, or it is not clear how to read it.
    """
    layout = layout or guess(folder)
    print(f"{folder} as {LAYOUTS[layout]}", flush=True)
    parts: Sequence[Part] = ()
    faults = 0
    try:
        parts = readers[layout](Path(folder))
    except UserError as error:  # so wrong that nothing else can be looked at
        print(f"\n  {error}")
        faults = 1
    for part in parts:
        print()
        for line in _lines(part.survey):
            print(line, flush=True)
        faults += sum(found.times for found in part.survey.faults.values())
        if decode and part.images:
            refused = images.unreadable(part.images, "decoding")
            faults += len(refused)
            for line in _unreadable(refused, folder) if refused else (f"  all {len(part.images):,} images decode",):
                print(line, flush=True)
    verdict = f"cannot be used: {faults:,} fault{'s' * (faults != 1)}" if faults else "can be used"
    print(f"\n{folder} {verdict}" + ("" if decode else "; no image was decoded (--decode does)"))
    return 2 if faults else 0


def _lines(survey: Survey) -> Iterator[str]:
    yield survey.counted()
    for heading, kinds in (("left out", survey.left_out), ("notes", survey.notes), ("faults", survey.faults)):
        width = max(map(len, kinds), default=0)
        if kinds:
            yield f"  {heading}"
        for kind, found in kinds.items():
            yield f"  {found.times:7,}  {kind:{width}}  {found.first}" + ", …" * (found.times > 1)
            if found.sentence:
                yield f"           {one_line(found.sentence)}"


def _unreadable(refused: dict[str, str], folder: Path) -> Iterator[str]:
    """All images that cannot be read, by what is said of them; numbers apart."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for path, sentence in refused.items():
        found = re.search(r"is no readable image \((.*)\): ", sentence)
        why = found[1] if found else sentence
        kinds.setdefault(re.sub(r"\d[\d,]*", "…", why), []).append((why, one_line(os.path.relpath(path, folder))))
    yield "  images that do not decode: restore them, or take them out, which makes another data set"
    for kind, some in kinds.items():
        yield f"  {len(some):7,}  {kind if len(some) > 1 else some[0][0]}"
        yield from (f"           {name}" for _, name in some)
