"""An ImageFolder: which files below a folder are its images, and of which class each is.

Names decide: no file with a known ending is opened, so that a million cost seconds. docs/data.md has the rules.
"""

import heapq
import os
import re
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from resim_bench.data import imagenet100, images, memory
from resim_bench.data.survey import Survey
from resim_bench.errors import UserError
from resim_bench.harness import runs

WNID = re.compile(r"n\d{8}")
SPLIT = re.compile(r"(val|valid|validation|test|testing|dev|eval)\d*", re.IGNORECASE)
TRAINING = re.compile(r"train(ing)?\d*", re.IGNORECASE)
# Beside what begins with a dot: what macOS, Synology, Windows and ext4 put into folders.
HIDDEN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
MANY = 10_000  # names: fewer are listed faster than remembered
SETTLED = 2_000_000_000  # ns: a folder that was just changed may change again without a newer time


class Images(NamedTuple):
    """What an ImageFolder holds: sorted by class and name.

    Attributes:
        folder: of the class folders.
        names: of the images, below it.
        labels: of each image, the number of its class.
        classes: their names.
        survey: counts, what was left out, faults.
    """

    folder: str
    names: list[str]
    labels: list[int]
    classes: list[str]
    survey: Survey

    def path(self, index: int) -> str:
        """Where an image is."""
        return os.path.join(self.folder, self.names[index])

    def facts(self) -> dict:
        """What a run keeps of its data: how much, and which by the images' names."""
        digest = runs.content_digest(images=map(os.fsencode, self.names))
        return {"images": len(self.names), "classes": len(self.classes), "digest": digest}

    def old_digest(self, root: str | os.PathLike[str]) -> str:
        """What stood for the digest before it went by content: names below the given folder, and sizes."""
        return runs.data_digest(root, map(self.path, range(len(self.names))))


def read(root: str | os.PathLike[str], name: str = "") -> Images:
    """Find the images of a folder `<class>/…/<image>`, or of one that holds such a folder as `train`.

    Args:
        root: the folder.
        name: of the recipe's data set; `imagenet100` takes the 100 classes of the list where folders are wnids.

    Returns:
        All that can be used; what is wrong is among the survey's faults.
    """
    root = os.fspath(root)
    survey = Survey(root)
    nothing = Images(root, [], [], [], survey)
    try:
        top = _classes_folder(root, survey)
        if not top:
            return nothing
        listed = set(imagenet100()) if name == "imagenet100" and any(map(WNID.fullmatch, os.listdir(top))) else None
    except OSError as error:
        survey.fault("folders that cannot be read", root, f"{root} cannot be read ({error.strerror}): allow it")
        return nothing
    survey.title = top
    found = _remembered_walk(top, survey, listed)
    of_class = _by_class(found, listed)
    missing = [c for c, names in of_class.items() if not names]
    if listed and missing:
        sentence = f"{top} lacks {len(missing)} of the 100 classes of IN-100, first of them {missing[0]}"
        survey.fault("missing classes", missing[0], sentence)
    for c in () if listed else missing:
        survey.leave_out("folders without images", c)
        del of_class[c]
    names = [name for names in of_class.values() for name in names]
    labels = [label for label, names in enumerate(of_class.values()) for _ in names]
    survey.images, survey.classes = len(names), len(of_class)
    stray = found[""].images if "" in found else []
    for image in stray:
        survey.leave_out("images outside of a class folder", image)
    if not names and not survey.faults:
        _fault_of_no_images(top, stray, survey)
    return Images(top, names, labels, list(of_class), survey)


def _by_class(found: dict[str, "_Content"], listed: set[str] | None) -> dict[str, list[str]]:
    """The images of each class, both sorted."""
    of_class: dict[str, list[str]] = {c: [] for c in sorted(listed or (f.split("/")[0] for f in found if f))}
    for folder, content in found.items():
        if folder:
            of_class[folder.split("/")[0]] += [f"{folder}/{image}" for image in content.images]
    for names in of_class.values():
        names.sort(key=_parts)
    return of_class


def _parts(name: str) -> list[str]:
    """Folders sort as one word each, as paths do: `a/b` is before `a-b/c`."""
    return name.split("/")


def _fault_of_no_images(top: str, stray: list[str], survey: Survey) -> None:
    if stray:
        fix = f"put its images into a folder of a class, as {top}/photos/{stray[0]}"
        survey.fault("images without a class folder", stray[0], f"{top} has images, but no class folders: {fix}")
    else:
        expected = f"expected {top}/<class>/<image> with endings such as .jpg or .png"
        survey.fault("no images", top, f"{top} holds no images: {expected}")


def _classes_folder(root: str, survey: Survey) -> str:
    """The folder of the class folders: `root`, or `train` in it unless that is a class; "" where there is none."""
    if not os.path.isdir(root):
        base = os.path.basename(root)
        survey.fault(
            "missing folders",
            root,
            f"there is no image folder {root}: put the training images there as {base}/<class>/<image>, "
            "or name their folder with --data (ImageNet: https://image-net.org/download, ILSVRC2012 train)",
        )
        return ""
    train = os.path.join(root, "train")
    if not os.path.isdir(train):
        folders = _folders(root)
        splits = [name for name in folders if SPLIT.fullmatch(name) or TRAINING.fullmatch(name)]
        # One alone without folders is a class.
        if splits == folders and (len(splits) > 1 or any(_folders(os.path.join(root, name)) for name in splits)):
            there = f"{root} holds {' and '.join(folders)}, but no train"
            survey.fault("splits in place of classes", folders[0], f"{there}: name the training images' folder")
            return ""
        return root
    beside = [entry for entry in _folders(root) if entry != "train"]
    splits = [entry for entry in beside if SPLIT.fullmatch(entry)]
    if not _folders(train) and splits:
        fix = f"put its images into a folder of a class, as {train}/photos/<image>"
        survey.fault("images without a class folder", "train", f"{train} has no class folders: {fix}")
        return ""
    is_class = not _folders(train) or any(_holds_images(os.path.join(root, entry)) for entry in beside)
    if is_class and not splits:
        return root
    for entry in beside:
        survey.leave_out("folders beside train", entry)
    return train


def _folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not _is_hidden(entry.name) and entry.is_dir())


def _holds_images(folder: str) -> bool:
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        if any(_has_known_ending(name) and not _is_hidden(name) for name in files):
            return True
    return False


def _is_hidden(name: str) -> bool:
    return name[0] == "." or name in HIDDEN


def _has_known_ending(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in images.ENDINGS


class _Content(NamedTuple):
    """What is in a folder, by name; `others` are links, files with other endings, pipes and the like."""

    images: list[str]
    folders: list[str]
    hidden: list[str]
    others: list[str]


def _remembered_walk(top: str, survey: Survey, listed: set[str] | None) -> dict[str, _Content]:
    """`_walk`, where folders whose time has not changed since the last are not listed again."""
    before = memory.recall("imagefolder", top)
    now: dict[str, list] = {}

    def scan(folder: str, status: os.stat_result) -> _Content:
        stamp = [status.st_ino, status.st_mtime_ns]
        match before.get(folder) if isinstance(before, dict) else None:
            case [*kept, names, folders, hidden] if kept == stamp:
                content = _Content(names, folders, hidden, others=[])
            case _:
                content = _scan(os.path.join(top, folder))
        # What others are depends on more than the folder's time.
        if not content.others and status.st_mtime_ns < started - SETTLED:
            now[folder] = [*stamp, *content[:3]]
        return content

    started = time.time_ns()
    found = _walk(top, survey, listed, scan)
    if now != before and sum(len(content.images) for content in found.values()) >= MANY:
        memory.remember("imagefolder", top, now)
    return found


def _walk(
    top: str, survey: Survey, listed: set[str] | None, scan: Callable[[str, os.stat_result], _Content]
) -> dict[str, _Content]:
    """Every folder that takes part, by its name below `top`; each once, and as itself rather than by a link."""
    found: dict[str, _Content] = {}
    seen = set()
    waiting: list[str] = [""]
    links: list[list[str]] = []  # a heap, so that the first by name is followed
    above = os.path.join(os.path.realpath(top), "")
    while waiting or links:
        is_link = not waiting
        folder = waiting.pop() if waiting else "/".join(heapq.heappop(links))
        path = os.path.join(top, folder)
        try:
            status = os.stat(path)
            itself = status.st_dev, status.st_ino
            if itself in seen or (is_link and above.startswith(os.path.join(os.path.realpath(path), ""))):
                survey.leave_out("links to folders that take part already", folder)
                continue
            content = scan(folder, status)
        except OSError as error:
            sentence = f"{path} cannot be read ({error.strerror}): allow it, or remove it"
            survey.fault("folders that cannot be read", folder, sentence)
            continue
        seen.add(itself)
        for name in content.hidden:
            survey.leave_out("hidden files and folders", os.path.join(folder, name))
        taken = listed if listed and not folder else {*content.folders, *content.others}
        for name in sorted(taken.intersection(_look_into(top, folder, content, survey))):
            heapq.heappush(links, _parts(os.path.join(folder, name)))
        waiting += (os.path.join(folder, name) for name in reversed(content.folders) if name in taken)
        found[folder] = content
    return found


def _scan(folder: str) -> _Content:
    content = _Content([], [], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if _is_hidden(name):
                content.hidden.append(name)
            elif entry.is_dir(follow_symlinks=False):
                content.folders.append(name)
            elif entry.is_file(follow_symlinks=False) and _has_known_ending(name):
                content.images.append(name)
            else:
                content.others.append(name)
    for names in content:
        names.sort()
    return content


def _look_into(top: str, folder: str, content: _Content, survey: Survey) -> set[str]:
    """Move the images among a folder's `others` to its images; the linked folders among them."""
    linked = set()
    for name in content.others:
        where = os.path.join(folder, name)
        path, known = os.path.join(top, where), _has_known_ending(name)
        try:
            mode = os.stat(path).st_mode
        except OSError:
            mode = 0
        if stat.S_ISDIR(mode):
            linked.add(name)
        elif stat.S_ISREG(mode) and (known or images.is_image(path)):
            content.images.append(name)
        elif not known:
            survey.leave_out("files that are no readable images", where)
        else:
            try:
                images.check_file(path)
            except UserError as error:
                survey.fault("pipes, sockets and devices" if mode else "broken links", where, str(error))
    return linked
