"""Two ways of doing one thing, measured in turn: what the rows of `resim-bench bench` are made of."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch


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


def in_turn(ours: Callable[[], object], reference: Callable[[], object], pairs: int) -> list[tuple[float, float]]:
    """Seconds of both in each of `pairs` rounds, A B A B, after one round that does not count.

    A machine that others use drifts; what is measured next to each other can be compared.
    """
    rounds = [(seconds(ours), seconds(reference)) for _ in range(pairs + 1)]
    return rounds[1:]


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
