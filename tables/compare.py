"""Verdicts: does a number of ours agree with the reported one, given the noise of both sides?

A difference (ours − reported) has a standard error from three parts, added in quadrature:

* ours: the trials of one pre-training are averaged first. Of several pre-trainings it is their spread, of one that of
  its transfers, never taken smaller than the prior (`paper.Noise.std`), over the root of their number. The prior is
  the spread of transfers alone: with one pre-training, how much that scatters is unknown and not in the interval.
* the paper's: the prior over the root of its trials, which are one where nobody says otherwise;
* the printed digit: uniform within ± 0.05, so 0.05 / √3.

Its 95 % interval is held against ± the metric's bound, the largest difference that still counts as the same
result (an equivalence test, so a match has to be earned): `match` inside, `below` or `above` wholly outside,
`inconclusive` where the interval reaches over a bound. A gain, the difference of two rows, has both rows' errors.
"""

import math
import statistics
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tables.paper import Noise

MATCH, BELOW, ABOVE, INCONCLUSIVE = "match", "below", "above", "inconclusive"
DEVIATES, UNVERIFIED, NO_CHECKPOINT, NO_VERDICT = "deviates", "unverified", "no checkpoint", "—"
COMPARED = (MATCH, BELOW, ABOVE, INCONCLUSIVE)
SEVERITY = (BELOW, ABOVE, INCONCLUSIVE, MATCH)  # of two verdicts of a row, the first of these is the row's

DIGIT_STD = 0.05 / math.sqrt(3)
Z_95 = 1.96
NAN = float("nan")


class Summary(NamedTuple):
    """Trials in numbers: their mean, its standard error, and the spread (`std`) of the units it comes from."""

    mean: float = NAN
    std: float = NAN
    error: float = NAN
    trials: int = 0
    pretrainings: int = 0


def summarise(noise: Noise, pretrainings: Collection[Sequence[float]]) -> Summary:
    """What `spread` finds with its error, which knows of `noise`; `pretrainings` has the values of each."""
    if not pretrainings:
        return Summary()
    mean, std, units = spread(pretrainings)
    error = (noise.std if math.isnan(std) else max(noise.std, std)) / math.sqrt(units)
    return Summary(mean, std, error, sum(len(values) for values in pretrainings), len(pretrainings))


def spread(pretrainings: Collection[Sequence[float]]) -> tuple[float, float, int]:
    """Mean, standard deviation (NaN of one) and number of the pre-trainings' means, or of the only one's transfers."""
    several = len(pretrainings) > 1
    units = [statistics.fmean(values) for values in pretrainings] if several else [*pretrainings][0]
    return statistics.fmean(units), statistics.stdev(units) if len(units) > 1 else NAN, len(units)


def standard_error(noise: Noise, ours: float, paper_trials: int = 1) -> float:
    """Of ours − reported, in per cent; `ours` is the standard error of our mean."""
    return math.hypot(ours, noise.std / math.sqrt(paper_trials), DIGIT_STD)


def verdict(noise: Noise, difference: float, error: float) -> str:
    """`match`, `below`, `above` or `inconclusive` for ours − reported (per cent) with that standard error."""
    half, bound = Z_95 * error, noise.bound
    if abs(difference) + half <= bound:
        return MATCH
    if difference + half < -bound:
        return BELOW
    if difference - half > bound:
        return ABOVE
    return INCONCLUSIVE


def sign(difference: float, error: float) -> int:
    """1 or −1 where a difference lies beyond its noise, else 0."""
    return (difference > Z_95 * error) - (difference < -Z_95 * error)


def p_below(noise: Noise, difference: float, error: float) -> float:
    """How likely a difference so low would be if the true one were just at the lower bound (one-sided, normal)."""
    return statistics.NormalDist().cdf((difference + noise.bound) / error)
