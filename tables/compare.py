"""Verdicts: does a number of ours agree with the reported one, given the noise of both sides?

A difference (ours − reported) has a standard error from three parts, added in quadrature:

* ours: the trials of one pre-training are averaged first. Of several pre-trainings it is their spread, of one that of
  its transfers, never taken smaller than the prior below, over the root of their number. The prior is the spread of
  transfers alone: with one pre-training, how much pre-training itself scatters is unknown and not in the interval.
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

MATCH, BELOW, ABOVE, INCONCLUSIVE = "match", "below", "above", "inconclusive"
DEVIATES, UNVERIFIED, NO_CHECKPOINT, NO_VERDICT = "deviates", "unverified", "no checkpoint", "—"
COMPARED = (MATCH, BELOW, ABOVE, INCONCLUSIVE)
SEVERITY = (BELOW, ABOVE, INCONCLUSIVE, MATCH)  # of two verdicts of a row, the first of these is the row's

# The spread of one transfer, in per cent. VOC: MoCo's README, over 5 trials. COCO: ours; two runs are said to differ
# by about 0.3, which is 0.2 each.
PRIOR_STD = {"AP": 0.2, "AP50": 0.2, "AP75": 0.4} | {
    f"{task}_{metric}": 0.2 for task in ("box", "mask") for metric in ("AP", "AP50", "AP75")
}
# With one trial a side the interval is ± 0.56, and of VOC's AP75 ± 1.11: a smaller bound could not be matched.
BOUND = {"AP": 1.0, "AP50": 1.0, "AP75": 2.0} | {
    f"{task}_{metric}": bound
    for task in ("box", "mask")
    for metric, bound in (("AP", 0.8), ("AP50", 1.0), ("AP75", 1.0))
}
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


def summarise(metric: str, pretrainings: Collection[Sequence[float]]) -> Summary:
    """The mean over pre-trainings of the mean over their transfers; `pretrainings` has the values of each."""
    if not pretrainings:
        return Summary()
    several = len(pretrainings) > 1
    units = [statistics.fmean(values) for values in pretrainings] if several else [*pretrainings][0]
    std = statistics.stdev(units) if len(units) > 1 else NAN
    spread = max(PRIOR_STD[metric], std) if len(units) > 1 else PRIOR_STD[metric]
    trials = sum(len(values) for values in pretrainings)
    return Summary(statistics.fmean(units), std, spread / math.sqrt(len(units)), trials, len(pretrainings))


def standard_error(metric: str, ours: float, paper_trials: int = 1) -> float:
    """Of ours − reported, in per cent; `ours` is the standard error of our mean."""
    return math.hypot(ours, PRIOR_STD[metric] / math.sqrt(paper_trials), DIGIT_STD)


def verdict(metric: str, difference: float, error: float) -> str:
    """`match`, `below`, `above` or `inconclusive` for ours − reported (per cent) with that standard error."""
    half, bound = Z_95 * error, BOUND[metric]
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


def p_below(metric: str, difference: float, error: float) -> float:
    """How likely a difference so low would be if the true one were just at the lower bound (one-sided, normal)."""
    return statistics.NormalDist().cdf((difference + BOUND[metric]) / error)


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
