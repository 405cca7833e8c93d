"""What a run writes of itself while it trains, read without torch: progress lines, a monitor's readings, its state."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from resim_bench import files

CLAIM = "run.json"  # in a run's directory: the configuration that it belongs to
LOCK = "lock"
SCALARS = "*/vis_data/scalars.json"  # one for each time that it was started
MONITOR = "monitor.jsonl"  # a line per reading
SHOWN = ("cells", "knn", "correspondence", "spread", "loss_instance")  # of a reading, in a figure
ROOMS = "pretrain", "transfer", "probe"  # of a work directory
FINISHED, RUNNING, STOPPED = "finished", "running", "stopped"

Lines = list[dict[str, float]]


class Run(NamedTuple):
    """A run of a work directory: its room (`pretrain`, `transfer` or `probe`), its name, and how far it is.

    `said` is when it last wrote something, seconds since 1970; 0 before it did.
    """

    folder: Path
    room: str
    name: str
    state: str
    said: float


def lines(file: Path) -> Lines:
    """The lines of a file that are any; without the last one where a kill cut it short."""
    text = Path(file).read_text("utf-8", errors="replace")
    return list(filter(None, map(_line, text[: text.rfind("\n") + 1].splitlines())))


def _line(text: str) -> dict[str, float]:
    """A line's numbers and words; nothing of what a full disk or an editor made of it."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) and isinstance(line.get("iter", 0), int) else {}


def progress(run_dir: Path) -> Lines:
    """The progress lines of a run: `iter`, `lr`, `eta`, `time`, `data_time` and so on."""
    return _once(lines(file) for file in sorted(Path(run_dir).glob(SCALARS)))


def seconds(run_dir: Path) -> float:
    """What the steps of a run took: their median time by their number, so that a busy moment does not count."""
    found = [line for line in progress(run_dir) if "time" in line]
    return statistics.median(line["time"] for line in found) * found[-1]["iter"] if found else 0.0


def monitored(run_dir: Path) -> Lines:
    """The readings of a run's monitor; none where it was off."""
    file = Path(run_dir, MONITOR)
    return _once([lines(file)]) if file.exists() else []


def _once(parts: Iterable[Lines]) -> Lines:
    """By iteration; of one that was done twice, the last. Tests write lines without any."""
    by_iter = {line["iter"]: line for part in parts for line in part if "iter" in line}
    return [by_iter[done] for done in sorted(by_iter)]


def found(work_dir: Path) -> list[Run]:
    """The runs of a work directory, the one that last wrote something first."""
    roots = [Path(work_dir), *Path(work_dir).glob("on/*")]  # the latter of studies on other data
    each = [_run(root, claim.parent) for root in roots for room in ROOMS for claim in root.glob(f"{room}/*/**/{CLAIM}")]
    return sorted(each, key=lambda run: (-run.said, run.room, run.name))


def _run(work_dir: Path, run_dir: Path) -> Run:
    room, *inside = run_dir.relative_to(work_dir).parts
    record = (work_dir / "records").joinpath(*inside[:-1], f"{inside[-1]}.json")
    output = run_dir / "backbone.safetensors" if room == "pretrain" else record
    state = FINISHED if output.exists() else RUNNING if files.is_locked(run_dir / LOCK) else STOPPED
    written = [*run_dir.glob(SCALARS), *run_dir.glob(MONITOR)]
    said = max((file.stat().st_mtime for file in written), default=0.0)
    return Run(run_dir, room, ", ".join(inside), state, said)
