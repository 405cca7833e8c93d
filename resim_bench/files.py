"""Files that a kill, a full disk or a second process cannot spoil: written whole and durably, or not at all.

What a killed process left half written is locked by nobody, so that the next one to come knows it and removes it.
"""

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from resim_bench.errors import UserError


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content takes the place of `place` when the block ends without an error.

    The content is on the disk before the name is given to it, and the name before this returns. Temporary files beside
    `place` that killed processes left are removed first.

    Raises:
        OSError: the disk is full, the folder cannot be written and the like; `place` is as it was.
    """
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    sweep(place.parent, f".{glob.escape(place.name)}.*.tmp")
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, place)
        sync_folder(place.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # of a file system that may only be read
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(place)  # a full disk does not say where
        raise


def read(file: Path) -> bytes:
    """The content of a regular file; a pipe, which would be waited for, is not opened.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    if not stat.S_ISREG(os.stat(file).st_mode) and not os.path.isdir(file):
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    return Path(file).read_bytes()


def sync(file: Path) -> None:
    """Put a file's content on the disk."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the file system knows how."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse it for folders
        pass
    finally:
        os.close(handle)


def sweep(folder: Path, pattern: str) -> None:
    """Remove the files in `folder` that match `pattern` and that no living process holds a lock on."""
    for file in Path(folder).glob(pattern):
        with contextlib.suppress(OSError), open(file, "r+b") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """An empty folder beside `place` in which to build it; removed at the end, as is what killed processes left there.

    Raises:
        UserError: another process builds it.
    """
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.with_name(f".{place.name}.lock"), str(place)):
        for left in place.parent.glob(f".{glob.escape(place.name)}.building-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.building-") as folder:
            yield Path(folder)


@contextlib.contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """An empty folder in the system's place for such, removed at the end; those of killed processes go first."""
    for lock in Path(tempfile.gettempdir()).glob(f"{prefix}*/lock"):
        with contextlib.suppress(UserError, OSError):
            if lock.stat().st_size:  # who makes one writes into it when it is locked
                with locked(lock, prefix):
                    shutil.rmtree(lock.parent)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder,
        locked(Path(folder, "lock"), folder),
    ):
        inside = Path(folder, "inside")
        inside.mkdir()
        yield inside


def clear_scratch(place: Path) -> None:
    """Remove what a process left of `scratch` that was killed when `place` stood already; nothing of living ones."""
    place = Path(place)
    left = next(place.parent.glob(f".{glob.escape(place.name)}.building-*"), None)
    if left or place.with_name(f".{place.name}.lock").exists():
        with contextlib.suppress(UserError), scratch(place):
            pass


@contextlib.contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Hold the lock `file` while the block runs; other processes are refused. It is removed at the end.

    The operating system lets go of the lock when the process ends, however it ends. It is a POSIX record lock: a forked
    loader worker does not inherit it, and does not keep it when its parent is killed.

    Args:
        file: of the lock; its folder has to be there.
        what: what is locked, for the sentence.

    Raises:
        UserError: another process holds it; the sentence says which, on which host.
    """
    file = Path(file)
    with contextlib.ExitStack() as stack:
        handle = _lock(file, what)
        stack.callback(os.close, handle)
        stack.callback(file.unlink, missing_ok=True)  # before the lock goes, so that nobody locks a removed file
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def refuse_locked(file: Path, what: str) -> None:
    """Refuse where another process holds the lock `file`, as `locked` does; one that a killed process left goes."""
    if not Path(file).is_file():
        return
    handle = os.open(file, os.O_RDWR)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(file).unlink()
    except BlockingIOError:
        raise _held(handle, what) from None
    finally:
        os.close(handle)


def is_locked(file: Path) -> bool:
    """Whether another process holds the lock `file`; nothing is changed."""
    try:
        with open(file, "rb") as stream:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False


def _held(handle: int, what: str) -> UserError:
    holder = os.read(handle, 200).decode(errors="replace") or "another process"
    return UserError(f"{what} is being worked on by {holder}: wait for it, or end it")


def _lock(file: Path, what: str) -> int:
    """The open handle of `file`, locked."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        except BlockingIOError:
            refusal = _held(handle, what)
            os.close(handle)
            raise refusal from None
        os.close(handle)  # its holder removed it between our opening and our locking it: try again
