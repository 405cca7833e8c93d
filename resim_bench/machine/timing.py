"""What `resim-bench bench` measures: two ways of doing one thing, in turn; and one thing at many sizes."""

import contextlib
import itertools
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from resim_bench.machine.estimate import die_quietly

SLACK = 0.15  # of an exponent: caches that overflow, logarithms of a sort, noise


class Comparison(NamedTuple):
    """A row of the table.

    Attributes:
        what: was done, on what.
        ours, reference: medians in `unit`.
        unit: `s` and `MB`, where less is better; others, such as `pairs/s`, are rates.
        ratio: median over the pairs of how many times better ours is (`at_least`), or of what it costs (`at_most`).
        low, high: least and greatest ratio of a pair.
        at_least, at_most: the goal of the ratio; one of them, or none.
    """

    what: str
    ours: float
    reference: float
    unit: str
    ratio: float
    low: float
    high: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return None if self.at_most is None else self.ratio <= self.at_most

    @property
    def header(self) -> str:
        """What stands above rows of this kind."""
        return _columns("", "ours", "reference", "unit", "ratio (of each pair)", "goal")

    def line(self) -> str:
        """The row as it is printed below its header."""
        sign, bound = ("≤", self.at_most) if self.at_least is None else ("≥", self.at_least)
        ratio, goal = _spread(self.ratio, self.low, self.high), _goal(sign, bound, self.met)
        return _columns(self.what, _number(self.ours), _number(self.reference), self.unit, ratio, goal)


class Growth(NamedTuple):
    """A row of the table: how the time grows with the work.

    Attributes:
        what: was done, from which size to which.
        sizes: of the work, ascending.
        seconds: that each took.
        exponent: the power of the size that the time grows with, see `exponent`.
        low, high: least and greatest power from one size to the next.
        at_most: the goal of the exponent.
    """

    what: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    low: float
    high: float
    at_most: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.exponent <= self.at_most

    @property
    def header(self) -> str:
        """What stands above rows of this kind."""
        return _columns("", "least", "greatest", "unit", "exponent (each step)", "goal")

    def line(self) -> str:
        """The row as it is printed below its header."""
        ends = _number(self.seconds[0]), _number(self.seconds[-1])
        found, goal = _spread(self.exponent, self.low, self.high), _goal("≤", self.at_most, self.met)
        return _columns(self.what, *ends, "s", found, goal)


class LeftOut(NamedTuple):
    """A row that cannot be measured here: what, and why."""

    what: str
    why: str

    @property
    def header(self) -> str:
        """None: it stands among rows of any kind."""
        return ""

    def line(self) -> str:
        """The row as it is printed."""
        return f"{self.what:{WIDTH}} left out: {self.why}"


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long `work()` takes, to the end of what it has started on a GPU."""
    started = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def in_turn(
    ours: Callable[[], object], reference: Callable[[], object], pairs: int, warm_up: int = 1
) -> list[tuple[float, float]]:
    """Seconds of both in each of `pairs` rounds, A B A B, after `warm_up` rounds that do not count.

    A machine that others use drifts; what is measured next to each other can be compared.
    """
    rounds = [(seconds(ours), seconds(reference)) for _ in range(warm_up + pairs)]
    return rounds[warm_up:]


def extra_memory(work: Callable[[], object]) -> int:
    """Bytes that tensors take at most at a time during `work()`, on top of those there before; as torch counts them."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else it says that there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), default=0)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: where others want the cores, too, threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def apart(make: Callable[..., Callable[[], object]], *args) -> Iterator[Callable[[], object]]:
    """The work that `make(*args)` returns, done in a process of its own: for what is set once a process.

    `make` and `args` are picklable. The process starts with the first call; what the work returns stays there.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=die_quietly) as pool:
        yield lambda: pool.submit(_work, make, args).result()


_prepared: list[Callable[[], object]] = []  # in the other process: what it is for


def _work(make, args) -> None:
    if not _prepared:
        _prepared.append(make(*args))
    seconds(_prepared[0])


def compare(
    what: str,
    rounds: Sequence[tuple[float, float]],
    *,
    amount: float | None = None,
    unit: str = "s",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Comparison:
    """A row from what was measured in turn.

    Args:
        rounds: `(ours, reference)` of each pair: seconds, or what `unit` says.
        amount: what was done in these seconds, where the row shows a rate: 64 with `unit="pairs/s"`.
        at_least: the goal of reference / ours, how many times better.
        at_most: the goal of ours / reference, what it costs; the row then shows that ratio.
    """
    ratios = [ours / reference if at_most is not None else reference / ours for ours, reference in rounds]
    ours, reference = (statistics.median(column) for column in zip(*rounds, strict=True))
    if amount is not None:
        ours, reference = amount / ours, amount / reference
    return Comparison(
        what, ours, reference, unit, statistics.median(ratios), min(ratios), max(ratios), at_least, at_most
    )


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The p of seconds = c · size^p that fits best: the slope of the least squares between their logarithms."""
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(t) for t in seconds]).slope


def grow(
    what: str,
    make: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    of: str,
    expected: int,
    rounds: int = 3,
) -> Growth:
    """Measure the work that `make(size)` returns at each size, in turn, after a round that does not count.

    Other programs interrupt long work and leave short work alone, which bends the line. So without a GPU the time is
    the processor's in this process, and of all rounds the least counts.

    Args:
        of: what the sizes count, such as "images".
        expected: the exponent that the work has by its definition; the goal lets `SLACK` be added.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    works = [make(size) for size in sizes]
    _, *measured = ([seconds(work, clock) for work in works] for _ in range(1 + rounds))
    least = tuple(map(min, zip(*measured, strict=True)))
    steps = [exponent(*step) for step in zip(itertools.pairwise(sizes), itertools.pairwise(least), strict=True)]
    what = f"{what}, {sizes[0]:,} to {sizes[-1]:,} {of}"
    return Growth(what, tuple(sizes), least, exponent(sizes, least), min(steps), max(steps), expected + SLACK)


WIDTH = 53


def _columns(what: str, first: str, second: str, unit: str, found: str, goal: str) -> str:
    return f"{what:{WIDTH}}{first:>8}{second:>11}  {unit:9}{found:23}{goal}".rstrip()


def _spread(value: float, low: float, high: float) -> str:
    return f"{value:z.2f}" + (f" ({low:z.2f} to {high:z.2f})" if low < high else "")


def _goal(sign: str, bound: float | None, met: bool | None) -> str:
    return "" if bound is None else f"{sign} {bound:g} {'reached' if met else 'missed'}"


def _number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
