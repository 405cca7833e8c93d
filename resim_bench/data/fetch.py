"""Download and unpack the data sets that anybody may download: a part appears whole and verified, or not at all."""

import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import requests
from tqdm import tqdm

from resim_bench import files
from resim_bench.data import catalogue
from resim_bench.errors import UserError

IMAGENET = (
    "ImageNet is given to registered people only: sign in at https://image-net.org/download, get "
    "ILSVRC2012_img_train.tar (148 GB, MD5 1d675b47d978889d74fa0da5fadfb00e), unpack it and the 1000 archives in it, "
    "and put or link the images as {root}/imagenet/train/<wnid>/<image>.JPEG"
)

PIECE = 2**16  # bytes that are read at a time: what is lost of a connection that breaks


def get(name: str, root: Path = Path("data")) -> None:
    """Fetch the parts of a data set that are not complete below `root`, one after the other.

    An archive is kept in `downloads` beside the part until that stands verified in its place; what was cut off
    continues, in the middle of a file, too. An archive put there by hand is used.

    Args:
        name: `voc` or `coco`.
        root: the folder of all data.

    Raises:
        UserError: the data set is unknown or not to be downloaded (ImageNet: says how to get it); something else
            stands in its place; another process fetches it; the disk is too small; a download fails or has another
            checksum; an archive cannot be unpacked.
    """
    root = Path(root)
    if name == "imagenet":
        raise UserError(IMAGENET.format(root=root))
    downloads = [(part, part.archive) for part in catalogue.DATA_SETS.get(name, []) if part.archive]
    if not downloads:
        raise UserError(f"'{name}' cannot be downloaded: choose voc or coco, or imagenet to read how to get it")
    problems = {part: part.problem(root / part.folder) for part, _ in downloads}
    for part, problem in problems.items():
        if problem and not problem.startswith(("missing", "incomplete")):
            raise UserError(
                f"{root / part.folder} holds something other than {part.title} ({problem}): move it away, or name "
                "another folder with --to"
            )
    lacking = [(part, archive) for part, archive in downloads if problems[part]]
    if lacking:
        _check_space(lacking, root)
    for part, archive in downloads:
        target = root / part.folder
        if problems[part]:
            _fetch(part, archive, target)
        files.clear_scratch(target)
        _forget(_file(archive, target))
        print(f"{part.title} is complete in {target}")


def _check_space(lacking: list[tuple[catalogue.Part, catalogue.Archive]], root: Path) -> None:
    """Refuse where the disk cannot hold the parts and, until it is unpacked, the largest archive."""
    folder = (root / lacking[0][0].folder).parent
    to_come = [archive.size - _there(_file(archive, root / part.folder)) for part, archive in lacking]
    needed = sum(part.size for part, _ in lacking) + max(to_come)
    free = shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, and downloading and unpacking take up to "
            f"{needed / 1e9:.1f} GB: make room, or name a folder on another disk with --to"
        )


def _file(archive: catalogue.Archive, target: Path) -> Path:
    return target.parent / "downloads" / archive.url.rpartition("/")[2]


def _begun(file: Path) -> Path:
    """Where an archive grows until it is whole."""
    return file.with_name(file.name + ".part")


def _there(file: Path) -> int:
    """How many bytes of an archive are there already."""
    return next((place.stat().st_size for place in (file, _begun(file)) if place.exists()), 0)


def _forget(file: Path) -> None:
    """Remove an archive whose content stands in its place."""
    for place in (file, _begun(file)):
        place.unlink(missing_ok=True)
    if file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()


def _fetch(part: catalogue.Part, archive: catalogue.Archive, target: Path) -> None:
    """Download a part, unpack it beside its place, and move it there."""
    file = _file(archive, target)
    try:
        with files.scratch(target) as scratch:
            _download(archive, file)
            _unpack(file, scratch)
            _move(scratch / archive.inside, target)
        if problem := part.problem(target):
            raise UserError(f"{part.title} in {target} does not verify ({problem}): remove {target} and try again")
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be unpacked ({error}): remove it and try again") from None
    except OSError as error:
        raise UserError(
            f"cannot write {part.title} to {target} ({error.strerror or error}): make room or name another folder "
            "with --to, and try again"
        ) from None


def _download(archive: catalogue.Archive, file: Path) -> None:
    """Download an archive to `file`, from where it broke off, or leave one with the right checksum as it is."""
    if file.exists():
        if _md5(file) != archive.md5:
            raise UserError(f"{file} has another checksum than {archive.url} should have: move it away and try again")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    begun = _begun(file)
    try:
        _continue(archive, begun)
    except requests.RequestException as error:
        reason = "the connection failed" if error.response is None else f"HTTP status {error.response.status_code}"
        again = "to continue" if begun.exists() else "later"
        raise UserError(
            f"cannot download {archive.url} ({reason}): start again {again}, or put the file into {file.parent} first"
        ) from None
    if _md5(begun) != archive.md5:
        begun.unlink()
        raise UserError(
            f"{archive.url} arrived with another checksum than expected, so the file was removed: try again"
        )
    os.replace(begun, file)
    files.sync_folder(file.parent)


def _continue(archive: catalogue.Archive, begun: Path) -> None:
    """Append to `begun` what it lacks; a server that cannot continue sends all of it once more."""
    have = begun.stat().st_size if begun.exists() else 0
    if have >= archive.size:
        return
    span = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(archive.url, headers=span, stream=True, timeout=60) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            begun.unlink()  # of a file that the server has no more
        answer.raise_for_status()
        continues = answer.status_code == requests.codes.partial_content
        bar = tqdm(
            desc=f"downloading {begun.stem}",
            total=archive.size,
            initial=have if continues else 0,
            unit="B",
            unit_scale=True,
            disable=None,  # silent outside of a terminal
        )
        with bar, open(begun, "ab" if continues else "wb") as stream:
            for piece in answer.iter_content(PIECE):
                stream.write(piece)
                bar.update(len(piece))
            os.fsync(stream.fileno())
    if "Content-Length" not in answer.headers and begun.stat().st_size < archive.size:
        raise requests.ConnectionError("it ended early, without a word")


def _md5(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _unpack(file: Path, folder: Path) -> None:
    """Unpack a tar or zip; nothing is written outside of `folder`."""
    progress = {"desc": f"unpacking {file.name}", "unit": " files", "disable": None}  # silent outside of a terminal
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder, members=tqdm(archive.namelist(), **progress))
    else:
        with tarfile.open(file) as archive:
            archive.extractall(folder, members=tqdm(archive, **progress), filter="data")


def _move(source: Path, target: Path) -> None:
    """Move a folder in one rename; where one stands in its place already, move what is in it, entry by entry."""
    if source.is_dir() and target.is_dir():
        for entry in source.iterdir():
            _move(entry, target / entry.name)
    else:
        source.rename(target)
