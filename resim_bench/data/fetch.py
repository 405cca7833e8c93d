"""Download and unpack the data sets that anybody may download: a part appears whole and verified, or not at all."""

import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from resim_bench.data import known
from resim_bench.errors import UserError

IMAGENET = (
    "ImageNet is given to registered people only: sign in at https://image-net.org/download, get "
    "ILSVRC2012_img_train.tar (148 GB, MD5 1d675b47d978889d74fa0da5fadfb00e), unpack it and the 1000 archives in it, "
    "and put or link the images as {root}/imagenet/train/<wnid>/<image>.JPEG"
)


def get(name: str, root: Path = Path("data")) -> None:
    """Fetch the parts of a data set that are not complete below `root`, one after the other.

    Archives are kept in `downloads` beside the part until it stands verified in its place, so that a run that was cut
    off downloads nothing twice that it had whole; an archive put there by hand is used, too.

    Args:
        name: `voc` or `coco`.
        root: the folder of all data.

    Raises:
        UserError: the data set is unknown or not to be downloaded (ImageNet: says how to get it); something else
            stands in its place; the disk is too small; a download fails or has another checksum; an archive cannot be
            unpacked.
    """
    root = Path(root)
    if name == "imagenet":
        raise UserError(IMAGENET.format(root=root))
    downloads = [(part, part.archive) for part in known.DATA_SETS.get(name, []) if part.archive]
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
        if problems[part]:
            _fetch(part, archive, root / part.folder)
        print(f"{part.title} is complete in {root / part.folder}")


def _check_space(lacking: list[tuple[known.Part, known.Archive]], root: Path) -> None:
    """Refuse where the disk cannot hold the parts and, until it is unpacked, the largest archive."""
    folder = (root / lacking[0][0].folder).parent
    archives = [archive.size for part, archive in lacking if not _file(archive, root / part.folder).exists()]
    needed = sum(part.size for part, _ in lacking) + max(archives, default=0)
    free = shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, and downloading and unpacking take up to "
            f"{needed / 1e9:.1f} GB: make room, or name a folder on another disk with --to"
        )


def _file(archive: known.Archive, target: Path) -> Path:
    return target.parent / "downloads" / archive.url.rpartition("/")[2]


def _fetch(part: known.Part, archive: known.Archive, target: Path) -> None:
    """Download a part, unpack it beside its place, and move it there."""
    file = _file(archive, target)
    try:
        _download(archive, file)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix="unpacking-") as scratch:
            _unpack(file, scratch)
            _move(Path(scratch, archive.inside), target)
        if problem := part.problem(target):
            raise UserError(f"{part.title} in {target} does not verify ({problem}): remove {target} and try again")
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be unpacked ({error}): remove it and try again") from None
    except OSError as error:
        raise UserError(
            f"cannot write {part.title} to {target} ({error.strerror or error}): make room or name another folder "
            "with --to, and try again"
        ) from None


def _download(archive: known.Archive, file: Path) -> None:
    """Download an archive to `file`, or leave one with the right checksum as it is; pooch writes all or nothing."""
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20)
    try:
        pooch.retrieve(archive.url, f"md5:{archive.md5}", file.name, file.parent, downloader=downloader)
    except requests.RequestException as error:
        reason = "the connection failed" if error.response is None else f"HTTP status {error.response.status_code}"
        raise UserError(
            f"cannot download {archive.url} ({reason}): try again, or put the file into {file.parent} by hand first"
        ) from None
    except ValueError:  # what pooch says of another checksum
        raise UserError(
            f"{archive.url} arrived with another checksum than expected, so the file was removed: try again"
        ) from None


def _unpack(file: Path, folder: str) -> None:
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
