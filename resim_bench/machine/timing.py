"""Two ways of doing one thing, measured in turn: what the rows of `resim-bench bench` are made of."""

import contextlib
import itertools
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


def seconds(work: Callable[[], object]) -> float:
    """How long `work()` takes, to the end of what it has started on a GPU."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


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


WIDTH = 53
HEADER = f"{'':{WIDTH}}{'ours':>8}{'reference':>11}  {'unit':9}{'ratio (of each pair)':23}goal"


def line(row: Comparison) -> str:
    """A row as it is printed below `HEADER`."""
    spread = f"{row.ratio:.2f}" + (f" ({row.low:.2f} to {row.high:.2f})" if row.low < row.high else "")
    goal = ""
    if row.met is not None:
        bound = f"≥ {row.at_least:g}" if row.at_least is not None else f"≤ {row.at_most:g}"
        goal = f"{bound} {'reached' if row.met else 'missed'}"
    numbers = f"{_number(row.ours):>8}{_number(row.reference):>11}"
    return f"{row.what:{WIDTH}}{numbers}  {row.unit:9}{spread:23}{goal}".rstrip()


def _number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
