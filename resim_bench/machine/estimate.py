"""How long, how much memory and how much disk recipes, protocols and tables take: from measurements to a table.

A measurement runs a few iterations of the real thing; what follows from it is arithmetic, and stands here.
"""

import contextlib
import io
import math
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from resim_bench.errors import UserError
from resim_bench.harness import runs
from resim_bench.machine import anchors, schedule

PIXELS = 2_000_000  # of a measurement's batch on a CPU: 39 views of 224 px, one image of 1333 x 800
LARGE = 300_000  # pixels of an image for detection beyond which a CPU measures a part of one: 666 x 400
POWER_EVERY = 0.1  # seconds between two readings of a GPU's power
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
        group: images that one process has to take at least, and in multiples of which.
        host: bytes of the measurement's process that are not a GPU's.
        watts: that a GPU draws; None where it does not tell.
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
    group: int = 1
    host: float = 0.0
    watts: float | None = None


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
    """What the ids stand for (`schedule.jobs`), counted: pre-trainings, then transfers.

    Raises:
        UserError: an id that there is not.
    """
    counts = Counter((job.room, job.id) for job in schedule.jobs(ids, trials))
    return [Run(*key, n) for room in ("pretrain", "transfer") for key, n in counts.items() if key[0] == room]


def measure_all(
    ids: Iterable[str], measures: dict[str, Callable[..., Measured]], trials: int = 1, **options
) -> dict[Run, Measured]:
    """Measure what the ids stand for.

    Args:
        ids, trials: see `schedule.jobs`.
        measures: what measures a run of a room, `pretrain` or `transfer`; called as `measure(id, **options)`.

    Raises:
        UserError: an id that there is not, or what a measure raises.
    """
    return {run: measured(run, measures[run.room], **options) for run in runs_of(ids, trials)}


def report(
    ids: Sequence[str],
    measures: dict[str, Callable[..., Measured]],
    trials: int = 1,
    gpus: int | None = None,
    price: float | None = None,
    **options,
) -> str:
    """Measure what the ids stand for, and return the table, and for `gpus` that were named a schedule.

    Args:
        ids, measures, trials: see `measure_all`.
        gpus: see `this_machine`.
        price: of an hour of a GPU.

    Raises:
        UserError: an id that there is not, or what a measure raises.
    """
    found, machine = measure_all(ids, measures, trials, **options), this_machine(gpus)
    text = table(found, machine, price)
    if gpus:
        text += "\n" + "\n".join(schedule.lines(slots(schedule.jobs(ids, trials), found, machine), gpus)) + "\n"
    return text


def slots(jobs: Iterable[schedule.Job], measurements: dict[Run, Measured], machine: Machine) -> list[schedule.Slot]:
    """When each job runs on the machine."""
    of = {(run.room, run.id): measured for run, measured in measurements.items()}
    return schedule.place(
        jobs,
        machine.processes,
        lambda job: seconds(of[job.room, job.id], machine),
        lambda job: width(of[job.room, job.id], machine),
    )


def measured(run: Run, measure: Callable[..., Measured], **options) -> Measured:
    """`measure(run.id, **options)` in a fresh process, whose peak memory is its own, and in silence."""
    print(f"measuring {run.id}", file=sys.stderr, flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=die_quietly) as pool:
        try:
            return pool.submit(_silently, measure, run.id, options).result()
        except RuntimeError as error:  # a broken pool is one, too
            full = any(words in str(error) for words in ("out of memory", "allocate memory"))
            if not full and not isinstance(error, BrokenProcessPool):
                raise
            smaller = "with --cfg-options batch=N (of a transfer total_batch=N)"
            raise UserError(
                f"{run.id} does not fit into the memory here, or the system ended it: plan elsewhere, or {smaller}"
            ) from None


def die_quietly() -> None:
    """Ctrl-C ends a measurement without a word: its parent says that it was interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _silently(measure, run_id, options):
    warnings.filterwarnings("ignore", message="Multi-processing start method")  # loaders may fork all the same
    with contextlib.redirect_stdout(io.StringIO()), power_readings() as watts:
        found = measure(run_id, **options)
    return found._replace(watts=statistics.quantiles(watts, n=10)[-1]) if len(watts) > 1 else found


@contextlib.contextmanager
def power_readings() -> Iterator[list[float]]:
    """Watts that the GPU draws, read while the block runs; none where there is no GPU, or it does not tell.

    The highest tenth of them is what it draws while it works: a measurement also starts and ends.
    """
    import torch

    readings: list[float] = []
    done = threading.Event()

    def read():
        with contextlib.suppress(Exception):  # of the driver's library, which may be missing: then there is no energy
            while not done.wait(POWER_EVERY):
                readings.append(torch.cuda.power_draw() / 1000)

    reader = threading.Thread(target=read)
    if torch.cuda.is_available():
        reader.start()
    try:
        yield readings
    finally:
        done.set()
        if reader.ident:
            reader.join()


def this_machine(gpus: int | None = None) -> Machine:
    """The machine at hand, or one with `gpus` GPUs like its own."""
    import torch

    here = torch.cuda.device_count()
    return Machine(runs.environment()["device"], len(os.sched_getaffinity(0)), here > 0, gpus or max(here, 1))


def small_batch(batch: int, pixels: int, group: int = 1) -> int:
    """Images of an iteration on a CPU: as many as `PIXELS` allow, in whole batch-norm groups, at least one."""
    return min(batch, max(group, PIXELS // pixels // group * group))


def small_side(pixels: int) -> int:
    """By what a CPU divides the sides of an image for detection, and by its square all that grows with its area."""
    return max(1, math.ceil(math.sqrt(pixels / LARGE)))


def few_iterations(measured: float, batch: int, counted: int | None = None) -> int:
    """Iterations of a measurement of `measured` images of a batch, of which `counted` count, if that is given."""
    return WARM_UP + (counted or (WHOLE if measured == batch else PART))


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
        lines: see `resim_bench.harness.trace.progress`.
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
        "host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "batch_memory": max(0, peak - fixed) * scale,
    }


def width(measured: Measured, machine: Machine) -> int:
    """Processes that a run can use of the machine's: they divide its batch, in whole batch-norm groups."""
    return divisor(measured.batch, measured.group, machine.processes)


def divisor(batch: int, group: int, most: int) -> int:
    """The largest number of processes up to `most` into which the whole groups of a batch divide."""
    most = min(most, batch // group)
    return next(n for n in range(most, 0, -1) if n == 1 or batch % (n * group) == 0)


def seconds_a_step(measured: Measured, machine: Machine) -> float:
    """Of all processes together. Workers load while a GPU computes; with a CPU they share the cores.

    Divided by the processes as if they did not have to communicate.
    """
    processes = width(measured, machine)
    loaders = min(measured.workers * processes, machine.cores) or processes
    step, load = measured.step / processes, measured.sample * measured.batch / loaders
    return max(step, load) if machine.gpu and measured.workers else step + load


def seconds(measured: Measured, machine: Machine) -> float:
    """Of the whole run."""
    once = measured.once + measured.shared / width(measured, machine)
    return once + measured.iterations * seconds_a_step(measured, machine)


def device_hours(measured: Measured, machine: Machine) -> float:
    """Hours of the whole run, times the GPUs that it takes; without any, of CPUs such as the one at hand."""
    return seconds(measured, machine) * width(measured, machine) / 3600


def memory(measured: Measured, machine: Machine) -> float:
    """Bytes of a process at most."""
    return measured.memory + measured.batch_memory / width(measured, machine)


class _Column(NamedTuple):
    """A column: what stands in it for `times` runs of what was measured, and how much of it all runs together take."""

    heading: str
    of: Callable[[int, Measured], float]
    text: Callable[[float], str]
    together: Callable[[Iterable[float]], float] | None  # of what `of` gives for the rows; None: nothing is said
    runs: bool = False  # whether `of` is of one run, which the total counts as often as it is run


def _columns(measurements: Iterable[Measured], machine: Machine, price: float | None) -> list[_Column]:
    columns = [
        _Column("runs", lambda n, m: n, "{:.0f}".format, sum),
        _Column("iterations", lambda n, m: m.iterations, "{:,}".format, None),
        _Column("s/step", lambda n, m: seconds_a_step(m, machine) if m.iterations else 0, _step, None),
        _Column("time", lambda n, m: seconds(m, machine), human_time, sum, runs=True),
        _Column(f"{_device(machine)}-hours", lambda n, m: n * device_hours(m, machine), "{:,.1f}".format, sum),
        _Column("memory", lambda n, m: memory(m, machine), human_bytes, max),
        _Column("disk", lambda n, m: m.disk, human_bytes, sum, runs=True),
    ]
    if any(m.watts for m in measurements):
        kilowatt_hours = lambda n, m: n * device_hours(m, machine) * (m.watts or 0) / 1000  # noqa: E731
        columns.append(_Column("kWh", kilowatt_hours, "{:,.1f}".format, sum))
    if price is not None:
        columns.append(_Column("cost", lambda n, m: n * device_hours(m, machine) * price, "{:,.2f}".format, sum))
    return columns


def _device(machine: Machine) -> str:
    """What its processes run on."""
    return "GPU" if machine.gpu else "CPU"


def _step(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds else "-"


def table(measurements: dict[Run, Measured], machine: Machine, price: float | None = None) -> str:
    """A row a recipe or protocol; the total of all runs; what was measured, on what.

    Args:
        measurements: of each run.
        machine: what it is planned for.
        price: of an hour of one of its GPUs.
    """
    columns = _columns(measurements.values(), machine, price)
    rows = [("id", *(column.heading for column in columns))]
    for run, measured in measurements.items():
        rows.append((run.id, *(column.text(column.of(run.times, measured)) for column in columns)))
    rows.append(("total", *(_total(column, measurements) for column in columns)))
    return (
        "\n".join([*aligned(rows), "", *_notes(measurements, machine, price), *_published(measurements, machine)])
        + "\n"
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _total(column, measurements):
    if not column.together:
        return ""
    cells = [column.of(run.times, m) * (run.times if column.runs else 1) for run, m in measurements.items()]
    return column.text(column.together(cells))


def _notes(measurements, machine, price):
    yield f"Measured on {machine.name}: a few iterations of each, in one process. Memory is a process's."
    if not machine.gpu:
        yield "No GPU is at hand: these are times and hours of this CPU, and a GPU takes a small part of them."
    kinds = f"{_device(machine)}-hours" + (", energy" if any(m.watts for m in measurements.values()) else "")
    such = "" if machine.gpu else " such as this"
    cost = f"; cost at {price:g} an hour of a {_device(machine)}{such}" if price is not None else ""
    yield f"Time, memory and disk are of one run, {kinds}{' and cost' if cost else ''} of all of a row{cost}."
    part = [f"{run.id} ({p.measured:g} of {p.batch} images)" for run, p in measurements.items() if p.measured < p.batch]
    if part:
        yield f"Measured with a part of the batch, and scaled: {', '.join(part)}."
    stood_in = [run.id for run, measured in measurements.items() if measured.generated]
    if stood_in:
        yield f"Measured on generated images of the real size, for lack of the data: {', '.join(stood_in)}."
    if machine.processes > 1:
        place = "" if machine.gpu else " No GPU was at hand: each of them counts as this CPU."
        count = f"{machine.processes} GPUs"
        whole = sum(run.times * seconds(measured, machine) for run, measured in measurements.items()) / 86400
        yield f"{count}: time divided by {machine.processes}, without communication, untested.{place}"
        yield f"{count} take {whole:,.1f} days for all of it, one run after another."
        narrow = [f"{run.id} ({n})" for run, m in measurements.items() if (n := width(m, machine)) < machine.processes]
        if narrow:
            yield f"On fewer GPUs, into which the batch divides: {', '.join(narrow)}."


def _published(measurements, machine):
    """What others said about the same, where no GPU is at hand."""
    known = [(run, m, anchor) for run, m in measurements.items() if (anchor := anchors.of(run.id)) and not machine.gpu]
    if known:
        rows = [("id", "here", "published", "GPU-hours")]
        for run, measured, anchor in known:
            whole = anchor.step * measured.iterations
            theirs = f"{human_time(whole)} on {anchor.gpus} {anchor.device}"
            rows.append((run.id, human_time(seconds(measured, machine)), theirs, f"{whole * anchor.gpus / 3600:,.0f}"))
        sources = ["", *(anchor.source for *_, anchor in known)]
        yield from ("", "Published of the same step on GPUs, of one run, for as many iterations:")
        yield from (f"{line}  {source}".rstrip() for line, source in zip(aligned(rows), sources, strict=True))


def human_time(seconds: float) -> str:
    """Two digits or three in the unit that suits: `43 s`, `17 min`, `5.2 h`, `12.4 d`."""
    for unit, size, digits in (("d", 86400, 1), ("h", 3600, 1), ("min", 60, 0 if seconds >= 600 else 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def human_bytes(count: float) -> str:
    """`190 MB`, `22.4 GB`, in units of 1024."""
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.0f} MB"
