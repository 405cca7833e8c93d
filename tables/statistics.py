"""Statistics of paired trials: what one seed gives in two settings is a pair, and differences are what is tested.

SciPy takes a quarter of a second to import, and only a finished study needs its distributions: imported where used.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Paired(NamedTuple):
    """A mean difference, its 95 % interval, the two-sided p of the paired t-test and the number of pairs."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(differences: Sequence[float], level: float = 0.95) -> Paired:
    """The paired t-test of at least two differences, and the interval of their mean."""
    from scipy.special import stdtr, stdtrit

    n = len(differences)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    half = stdtrit(n - 1, (1 + level) / 2) * error
    p = 2 * stdtr(n - 1, -abs(mean) / error) if error else float(mean == 0)
    return Paired(mean, float(mean - half), float(mean + half), float(p), n)


def prediction_interval(values: Sequence[float], level: float = 0.99) -> tuple[float, float]:
    """Where one more value falls with this probability: m ± t s √(1 + 1/n), of at least two values."""
    from scipy.special import stdtrit

    n = len(values)
    half = stdtrit(n - 1, (1 + level) / 2) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def power(n: int, effect: float, std: float, alpha: float = 0.05) -> float:
    """How likely a paired t-test (two-sided) of n pairs finds a mean difference whose spread over pairs is `std`."""
    from scipy.special import nctdtr, stdtrit

    critical, shift = stdtrit(n - 1, 1 - alpha / 2), effect / std * math.sqrt(n)
    return float(1 - nctdtr(n - 1, shift, critical) + nctdtr(n - 1, shift, -critical))


def pairs_needed(effect: float, std: float, wanted: float = 0.8, alpha: float = 0.05) -> int:
    """The fewest pairs of that power."""
    n = 2
    while power(n, effect, std, alpha) < wanted:
        n += 1
    return n


def holm(p_values: Sequence[float], alpha: float = 0.025) -> list[bool]:
    """Which hypotheses fall when all errors together stay within `alpha` (Holm 1979, step-down).

    2.5 % on one side is where the 95 % interval of a verdict ends, too.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > alpha / (len(order) - rank):
            break
        rejected[i] = True
    return rejected
