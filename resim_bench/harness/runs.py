"""What a run is: its directory, the configuration that it belongs to, and the circumstances that a record names."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from resim_bench import files
from resim_bench.errors import UserError
from resim_bench.experiments import ROOT
from resim_bench.harness.trace import CLAIM, LOCK

PACKAGES = ("torch", "torchvision", "onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "resim-bench")


def plain(value):
    """`value` as JSON would give it back (tuples become lists), so that two configurations compare by content."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def data_digest(root: Path, files: Iterable[Path]) -> str:
    """sha256 over the names (below `root`) and sizes of `files`: cheap for a million images, blind to content."""
    lines = sorted(f"{Path(file).relative_to(root)}:{Path(file).stat().st_size}" for file in files)
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()


def content_digest(**parts: Iterable[bytes]) -> dict[str, str]:
    """What a data set is, by its content: `{"kind": "content", part: sha256}`, a part being what its entries say.

    The parts are `images` (their names), and of annotated data `lists` (of the splits) and `annotations`. So a
    corrected label or another split is another data set, and a repaired image is not.
    """
    digests = {"kind": "content"}
    for name, entries in parts.items():
        total = hashlib.sha256()
        for entry in entries:
            total.update(len(entry).to_bytes(8, "little") + entry)
        digests[name] = total.hexdigest()
    return digests


def flatten(value, prefix: str = "") -> dict:
    """Nested dicts as one dict with dotted keys; every other value is a leaf."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    leaves: dict = {}
    for key, inner in value.items():
        leaves |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def differences(canonical: dict, run: dict) -> dict[str, list]:
    """`{setting: [canonical, run]}` for every setting in which the two protocols differ."""
    canonical, run = flatten(plain(canonical)), flatten(plain(run))
    return {
        key: [canonical.get(key), run.get(key)] for key in sorted(canonical | run) if canonical.get(key) != run.get(key)
    }


LAST, BEFORE = "last.pth", "before.pth"  # the last checkpoint, and the one before it
HALF = "last.pth.tmp"  # one that is being written


def checkpoint(run_dir: Path) -> Path | None:
    """Where the run continues: its last checkpoint, or the one before where that was deleted; None without one."""
    return next((file for name in (LAST, BEFORE) if (file := Path(run_dir) / name).exists()), None)


def is_finished(
    run_dir: Path, config: dict, output: Path, resume: bool, *, made_by: Callable[[], dict], old_digest=None
) -> bool:
    """Whether `output` is there and is this run's; refuse where its place belongs to anything else. Writes nothing.

    Args:
        run_dir: where the run keeps its log, its checkpoints and `run.json`, the configuration it belongs to.
        config: what decides the numbers (protocol, seed, data); JSON-able.
        output: the file that a finished run leaves.
        resume: whether to continue an unfinished run.
        made_by: the configuration that `output` itself says it is of; what it raises is passed on.
        old_digest: gives the data's digest as it was before it went by content, for what was started then.

    Raises:
        UserError: the directory or the output are of another run, or in use by another process; `run.json` is damaged;
            the run is unfinished and `resume` is off.
    """
    files.refuse_locked(Path(run_dir) / LOCK, str(run_dir))
    return _is_finished(Path(run_dir), config, Path(output), resume, made_by, old_digest)


def _is_finished(run_dir, config, output, resume, made_by, old_digest) -> bool:
    config = plain(config)
    if os.path.lexists(output):
        _refuse_another(f"{output} is the result", plain(made_by()), config, old_digest, "move it away")
        return True
    last = checkpoint(run_dir)
    if last is None:
        return False  # a claim without a checkpoint has nothing that could be lost
    _refuse_another(f"{run_dir} holds a run", read_claim(run_dir), config, old_digest, "delete that directory")
    if not resume:
        raise UserError(f"{run_dir} holds an unfinished run: add --resume to continue it, or delete it")
    return False


def read_claim(run_dir: Path) -> dict:
    """The configuration that a run's directory belongs to.

    Raises:
        UserError: its `run.json` is missing or damaged.
    """
    file = Path(run_dir) / CLAIM
    try:
        config = json.loads(files.read(file))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        problem = "is damaged" if file.exists() else "is missing"
        raise UserError(
            f"{file} {problem}, so that nobody can say what the checkpoint beside it is of: delete {run_dir} to start "
            "anew, or restore the file"
        )
    return config


def _refuse_another(what: str, found: dict, config: dict, old_digest, remedy: str) -> None:
    """Refuse where the configuration `found` is not `config`; data are compared by the kind of digest that was kept."""
    data = found.get("data")
    if old_digest and isinstance(data, dict) and isinstance(data.get("digest"), str):
        config = config | {"data": config["data"] | {"digest": old_digest()}}
    differing = differences(found, config)
    if differing:
        key, (before, now) = next(iter(differing.items()))
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise UserError(
            f"{what} of another configuration ({key} was {_short(before)}, is now {_short(now)}{more}): "
            f"give another --work-dir, or {remedy}"
        )


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"


@contextlib.contextmanager
def claimed(
    run_dir: Path, config: dict, output: Path, resume: bool, *, made_by: Callable[[], dict], old_digest=None
) -> Iterator[bool]:
    """Hold `run_dir` for `config` while the block runs; yields whether `output` was finished in the meantime.

    Arguments and errors are those of `is_finished`. The directory is locked, and `run.json` written, once. A block that
    fails before there is a checkpoint removes what it made, and nothing else; a half-written checkpoint goes, too.
    """
    run_dir, output = Path(run_dir), Path(output)
    above = next(folder for folder in run_dir.parents if folder.exists())
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with files.locked(run_dir / LOCK, str(run_dir)):
            done = _is_finished(run_dir, config, output, resume, made_by, old_digest)
            there = {entry.name for entry in run_dir.iterdir()} - {CLAIM, HALF}
            (run_dir / HALF).unlink(missing_ok=True)
            if not done and checkpoint(run_dir) is None:
                with files.replacing(run_dir / CLAIM) as stream:
                    stream.write((json.dumps(plain(config), indent=1, sort_keys=True) + "\n").encode())
            try:
                yield done
            except BaseException:
                if checkpoint(run_dir) is None and not os.path.lexists(output):
                    _remove_all_but(there, run_dir)
                raise
    finally:
        _remove_empty(run_dir, above)


def _remove_all_but(names: set[str], folder: Path) -> None:
    """Remove what a start made in `folder`: whatever has another name than what was there before."""
    for entry in folder.iterdir():
        if entry.name in names:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove `folder` and its parents below `above` as far as they are empty."""
    with contextlib.suppress(OSError):
        while folder != above:
            folder.rmdir()
            folder = folder.parent


def commit() -> str:
    """This repository's, `-dirty` where tracked files are others but kept records; "unknown" outside of a clone."""

    def git(*args):
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=True).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != ROOT:
            return "unknown"  # the environment stands in somebody else's repository
        head = git("rev-parse", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)tables/records")
        return head + ("-dirty" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def device() -> str:
    """What trainings run on here: how many of which GPU, or processor."""
    import torch

    gpus = torch.cuda.device_count()
    return f"{gpus} x {torch.cuda.get_device_name()}" if gpus else _cpu_name()


def environment() -> dict:
    """`versions` of the packages that decide numbers, `commit` of this repository, the `device` and its `threads`."""
    import torch

    installed = {name: _version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **installed},
        "commit": commit(),
        "device": device(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
