"""The image files of a data set: their sizes, and whether they decode.

What was found out about many is remembered as long as a file's name, size and time of change stay.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from resim_bench.data import images, memory
from resim_bench.data.images import Size
from resim_bench.errors import UserError

MANY = 2_000  # files: fewer are looked into faster than remembered
HEAVY = 20_000_000  # bytes: less is decoded faster than processes start
THREADS = 8  # a header is mostly waiting
PART = 256  # headers that a thread reads at a time


def sizes(root: Path, names: Sequence[str], split: str) -> list[Size | str]:
    """For each image below `root` its size, or the sentence that says why it has none.

    Args:
        root: the data set's folder.
        names: of files below it.
        split: what the images are, for the memory.
    """
    kind = f"sizes-{split}"
    known = _recall(kind, root) if len(names) >= MANY else {}
    marks = {name: _mark(os.path.join(root, name)) for name in names}
    found: dict[str, Size | str] = {
        name: Size(*known[name][2:])
        for name, mark in marks.items()
        if len(known.get(name, ())) == 5 and known[name][:2] == mark
    }
    new = [name for name in marks if name not in found]
    parts = [new[start : start + PART] for start in range(0, len(new), PART)]
    pool = ThreadPoolExecutor(THREADS)
    try:
        read = pool.map(lambda part: [_size(os.path.join(root, name)) for name in part], parts)
        for part, of_part in zip(tqdm(parts, "sizes of images", leave=False, disable=None), read, strict=True):
            found |= zip(part, of_part, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
    if len(new) >= MANY:
        memory.remember(kind, root, {n: [*marks[n], *size] for n, size in found.items() if isinstance(size, Size)})
    return [found[name] for name in names]


def check_decodable(root: Path, names: Sequence[str], split: str) -> None:
    """Decode images below `root`, on all cores and with progress where that takes long.

    Args:
        root, names, split: as above.

    Raises:
        UserError: what is wrong with the first that does not decode, and how many more do not.
    """
    kind = f"decoded-{split}"
    marks = {name: _mark(os.path.join(root, name)) for name in names}
    heavy = sum(size for size, _ in marks.values()) > HEAVY
    known = _recall(kind, root) if heavy else {}
    paths = {os.path.join(root, name): name for name, mark in marks.items() if known.get(name) != mark}
    refused = (images.unreadable if heavy else _unreadable)(list(paths), "decoding the test's images")
    if heavy and paths:
        bad = {paths[path] for path in refused}
        memory.remember(kind, root, {name: mark for name, mark in marks.items() if name not in bad})
    if refused:
        more = len(refused) - 1
        hint = f" ({more} more: `resim-bench data check --decode` shows all)" if more else ""
        raise UserError(next(iter(refused.values())) + hint)


def _unreadable(paths, what):
    """As `images.unreadable`, in this process and in silence."""
    refusals = {path: images.refusal(path) for path in paths}
    return {path: sentence for path, sentence in refusals.items() if sentence}


def _recall(kind, root):
    """What is remembered: lists by name."""
    known = memory.recall(kind, root)
    return {name: mark for name, mark in known.items() if isinstance(mark, list)} if isinstance(known, dict) else {}


def _mark(path) -> list[int]:
    """Size and time of change of a file; -1 where there is none, which is never remembered as good."""
    try:
        found = os.stat(path)
        return [found.st_size, found.st_mtime_ns]
    except (OSError, ValueError):
        return [0, -1]


def _size(path):
    try:
        return images.stored_size(path)
    except UserError as error:
        return str(error)
