"""How long, how much memory and how much disk recipes, protocols and tables take: from measurements to a table.

A measurement runs a few iterations of the real thing; what follows from it is arithmetic, and stands here.
"""

import contextlib
import io
import math
import multiprocessing
import os
import signal
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from resim_bench import experiments
from resim_bench.harness import runs

PIXELS = 2_000_000  # of a measurement's batch on a CPU: 39 views of 224 px, one image of 1333 x 800
LARGE = 300_000  # pixels of an image for detection beyond which a CPU measures a part of one: 666 x 400
WARM_UP = 1  # iterations of a measurement that do not count
WHOLE, PART = 10, 2  # that do, with all of the batch or a part of it


class Measured(NamedTuple):
    """What a few iterations say about a whole run.

    Attributes:
        iterations: of the whole run.
        batch: images per iteration, over all processes.
        step: seconds of an iteration in one process, without its data.
        sample: seconds that one image takes to load.
        workers: of the loader, a process.
        shared: seconds outside of the iterations that processes divide among them: precise batch norm, the test.
        once: seconds that they do not: start, checkpoints, evaluation.
        memory: bytes of a process, whatever the batch.
        batch_memory: bytes that come with the batch, in one process.
        disk: bytes that the run leaves.
        measured: images of an iteration of the measurement; less than 1 is a part of one.
        generated: whether the images stood in for those of the data set.
    """

    iterations: int
    batch: int
    step: float
    sample: float
    workers: int
    shared: float
    once: float
    memory: float
    batch_memory: float
    disk: int
    measured: float
    generated: bool = False


class Machine(NamedTuple):
    """What a plan is for: `processes` of which each has a GPU (`gpu`) or a CPU such as the one at hand, and `cores`."""

    name: str
    cores: int
    gpu: bool
    processes: int


class Run(NamedTuple):
    """A recipe or protocol, and how many times it is run."""

    room: str
    id: str
    times: int


def runs_of(ids: Iterable[str], trials: int = 1) -> list[Run]:
    """What the ids stand for; a table is its recipes, each once, and the transfers of its rows, `trials` each.

    A table whose id a protocol has, too, is named `table:coco-1x`.

    Raises:
        UserError: an id that there is not.
    """
    recipes, protocols, tables = experiments.pretrain_ids(), experiments.transfer_ids(), experiments.reported_tables()
    named = {f"table:{i}" if i in protocols else i: experiments.of_table(i) for i in tables}
    pretrainings: dict[str, int] = {}
    transfers: Counter[str] = Counter()
    for asked in ids:
        chosen = experiments.select_one(asked, [*recipes, *protocols, *named])
        if chosen in recipes:
            pretrainings[chosen] = trials
        elif chosen in protocols:
            transfers[chosen] += trials
        else:
            pairs = named[chosen]
            pretrainings = {pair.pretrain_id: 1 for pair in pairs if pair.pretrain_id in recipes} | pretrainings
            transfers.update({i: trials * n for i, n in Counter(pair.transfer_id for pair in pairs).items()})
    found = [Run("pretrain", i, n) for i, n in pretrainings.items()]
    return found + [Run("transfer", i, n) for i, n in transfers.items()]


def report(ids: Iterable[str], measures: dict[str, Callable[..., Measured]], trials=1, gpus=None, **options) -> str:
    """Measure what the ids stand for, and return the table.

    Args:
        ids, trials: see `runs_of`.
        measures: what measures a run of a room, `pretrain` or `transfer`; called as `measure(id, **options)`.
        gpus: see `this_machine`.

    Raises:
        UserError: an id that there is not, or what a measure raises.
    """
    measurements = {run: measured(run, measures[run.room], **options) for run in runs_of(ids, trials)}
    return table(measurements, this_machine(gpus))


def measured(run: Run, measure: Callable[..., Measured], **options) -> Measured:
    """`measure(run.id, **options)` in a fresh process, whose peak memory is its own, and in silence."""
    print(f"probing {run.id}", file=sys.stderr, flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_die_quietly) as pool:
        return pool.submit(_silently, measure, run.id, options).result()


def _die_quietly() -> None:
    """Ctrl-C ends a measurement without a word: its parent says that it was interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _silently(measure, run_id, options):
    warnings.filterwarnings("ignore", message="Multi-processing start method")  # loaders may fork all the same
    with contextlib.redirect_stdout(io.StringIO()):
        return measure(run_id, **options)


def this_machine(gpus: int | None = None) -> Machine:
    """The machine at hand, or one with `gpus` GPUs like its own."""
    import torch

    here = torch.cuda.device_count()
    return Machine(runs.environment()["device"], os.cpu_count() or 1, here > 0, gpus or max(here, 1))


def small_batch(batch: int, pixels: int, group: int = 1) -> int:
    """Images of an iteration on a CPU: as many as `PIXELS` allow, in whole batch-norm groups, at least one."""
    return min(batch, max(group, PIXELS // pixels // group * group))


def small_side(pixels: int) -> int:
    """By what a CPU divides the sides of an image for detection, and by its square all that grows with its area."""
    return max(1, math.ceil(math.sqrt(pixels / LARGE)))


def few_iterations(measured: float, batch: int) -> int:
    """Iterations of a measurement that takes `measured` images of a batch."""
    return WARM_UP + (WHOLE if measured == batch else PART)


def from_lines(
    lines: list[dict[str, float]],
    *,
    batch: int,
    measured: int,
    elapsed: float,
    fixed: int,
    peak: int,
    part: float = 1.0,
) -> dict[str, float]:
    """The fields of a `Measured` that follow from its progress lines, one per iteration, and its peak memory.

    Args:
        lines: see `resim_bench.harness.progress.read`.
        batch, measured: images of an iteration of the whole run and of the measurement.
        part: of each image's work that was measured; all of an image is loaded.
        elapsed: seconds that the measurement took, without what processes share.
        fixed: bytes, such as weights and momentum, that do not grow with the batch; of `peak`.
    """
    counted = lines[WARM_UP:]
    load = statistics.median(line["data_time"] for line in counted)
    step = statistics.median(line["time"] - line["data_time"] for line in counted)
    scale = batch / (measured * part)
    return {
        "batch": batch,
        "measured": measured * part,
        "step": step * scale,
        "sample": load / measured,
        "once": elapsed - len(lines) * (load + step),
        "memory": fixed,
        "batch_memory": max(0, peak - fixed) * scale,
    }


def seconds_a_step(measured: Measured, machine: Machine) -> float:
    """Of all processes together. Workers load while a GPU computes; with a CPU they share the cores.

    Divided by the processes as if they did not have to communicate.
    """
    loaders = min(measured.workers * machine.processes, machine.cores) or machine.processes
    step, load = measured.step / machine.processes, measured.sample * measured.batch / loaders
    return max(step, load) if machine.gpu and measured.workers else step + load


def seconds(measured: Measured, machine: Machine) -> float:
    """Of the whole run."""
    return measured.once + measured.shared / machine.processes + measured.iterations * seconds_a_step(measured, machine)


def memory(measured: Measured, machine: Machine) -> float:
    """Bytes of a process at most."""
    return measured.memory + measured.batch_memory / machine.processes


HEADINGS = ("id", "runs", "iterations", "s/step", "time", "memory", "disk")


def table(measurements: dict[Run, Measured], machine: Machine) -> str:
    """A row a recipe or protocol, times and bytes of one run; the total of all runs; what was measured, on what."""
    rows = [
        HEADINGS,
        *(_row(run, measured, machine) for run, measured in measurements.items()),
        _total(measurements, machine),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([*lines, "", *_notes(measurements, machine)]) + "\n"


def _row(run, measured, machine):
    step = f"{seconds_a_step(measured, machine):.3g}" if measured.iterations else "-"
    bulk = human_bytes(memory(measured, machine)), human_bytes(measured.disk)
    return run.id, str(run.times), f"{measured.iterations:,}", step, human_time(seconds(measured, machine)), *bulk


def _total(measurements, machine):
    time = sum(run.times * seconds(measured, machine) for run, measured in measurements.items())
    most = max(memory(measured, machine) for measured in measurements.values())
    disk = sum(run.times * measured.disk for run, measured in measurements.items())
    times = sum(run.times for run in measurements)
    return "total", str(times), "", "", human_time(time), human_bytes(most), human_bytes(disk)


def _notes(measurements, machine):
    yield f"Measured on {machine.name}: a few iterations of each, in one process. Memory is a process's."
    part = [f"{run.id} ({p.measured:g} of {p.batch} images)" for run, p in measurements.items() if p.measured < p.batch]
    if part:
        yield f"Measured with a part of the batch, and scaled: {', '.join(part)}."
    stood_in = [run.id for run, measured in measurements.items() if measured.generated]
    if stood_in:
        yield f"Measured on generated images of the real size, for lack of the data: {', '.join(stood_in)}."
    if machine.processes > 1:
        place = "" if machine.gpu else " No GPU was at hand: each of them counts as this CPU."
        count = f"{machine.processes} GPUs"
        yield f"{count}: time divided by {machine.processes}, without communication, untested.{place}"


def human_time(seconds: float) -> str:
    """Two digits or three in the unit that suits: `43 s`, `17 min`, `5.2 h`, `12.4 d`."""
    for unit, size, digits in (("d", 86400, 1), ("h", 3600, 1), ("min", 60, 0 if seconds >= 600 else 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def human_bytes(count: float) -> str:
    """`190 MB`, `22.4 GB`, in units of 1024."""
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.0f} MB"
