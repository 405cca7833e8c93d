"""What a run is: its directory, the configuration that it belongs to, and the circumstances that a record names."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from resim_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
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


def deviations(canonical: dict, run: dict) -> dict[str, list]:
    """`{setting: [canonical, run]}` for every setting in which the two protocols differ."""
    canonical, run = flatten(plain(canonical)), flatten(plain(run))
    return {
        key: [canonical.get(key), run.get(key)] for key in sorted(canonical | run) if canonical.get(key) != run.get(key)
    }


def open_run(run_dir: Path, config: dict, output: Path, resume: bool) -> bool:
    """Claim `run_dir` for `config`; True when `output` is there already, so that nothing is left to do.

    Args:
        run_dir: where the run keeps its log, its last checkpoint and `run.json`, the configuration it belongs to.
        config: what decides the numbers (protocol, seed, data); JSON-able.
        output: the file that a finished run leaves.
        resume: whether to continue an unfinished run.

    Raises:
        UserError: the directory holds a run of another configuration, or an unfinished one and `resume` is off.
    """
    run_dir, config = Path(run_dir), plain(config)
    claim = run_dir / "run.json"
    if claim.is_file():
        differing = deviations(json.loads(claim.read_text()), config)
        if differing:
            key, (before, now) = next(iter(differing.items()))
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise UserError(
                f"{run_dir} holds a run of another configuration ({key} was {before}, is now {now}{more}): "
                "give another --work-dir, or delete that directory"
            )
        if Path(output).is_file():
            return True
        if (run_dir / "last.pth").is_file() and not resume:
            raise UserError(f"{run_dir} holds an unfinished run: add --resume to continue it, or delete it")
    run_dir.mkdir(parents=True, exist_ok=True)
    Path(output).unlink(missing_ok=True)
    claim.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    return False


def _commit() -> str:
    def git(*args):
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=True).stdout

    try:
        head = git("rev-parse", "HEAD").strip()
        return head + ("-dirty" if git("status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def environment() -> dict:
    """`versions` of the packages that decide numbers, `commit` of this repository, and the `device`."""
    import torch

    installed = {name: _version(name) for name in PACKAGES}
    gpus = torch.cuda.device_count()
    device = f"{gpus} x {torch.cuda.get_device_name()}" if gpus else _cpu_name()
    return {
        "versions": {"python": platform.python_version(), **installed},
        "commit": _commit(),
        "device": device,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
