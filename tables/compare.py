"""Verdicts: does a number of ours agree with the reported one, given the noise of both sides?

A difference (ours − reported) has a standard error from three parts, added in quadrature:

* ours: the spread over our trials, never taken smaller than the prior below, over √trials;
* the paper's: one trial (it does not say otherwise), so the prior;
* the printed digit: uniform within ± 0.05, so 0.05 / √3.

Its 95 % interval is held against ± the metric's bound, the largest difference that still counts as the same
result (an equivalence test, so a match has to be earned): `match` inside, `below` or `above` wholly outside,
`inconclusive` where the interval reaches over a bound.
"""

import math

MATCH, BELOW, ABOVE, INCONCLUSIVE = "match", "below", "above", "inconclusive"
DEVIATES, UNVERIFIED, NO_VERDICT = "deviates", "unverified", "—"
COMPARED = (MATCH, BELOW, ABOVE, INCONCLUSIVE)

PRIOR_STD = {"AP": 0.2, "AP50": 0.2, "AP75": 0.4}  # of one VOC transfer, in per cent
# With one trial a side the interval of AP75 is ± 1.1, so a match within ± 1.0 could never be reached.
BOUND = {"AP": 1.0, "AP50": 1.0, "AP75": 2.0}
DIGIT_STD = 0.05 / math.sqrt(3)
Z_95 = 1.96


def standard_error(metric: str, std: float, trials: int) -> float:
    """Of ours − reported, in per cent; `std` is the spread over our trials (NaN with one)."""
    prior = PRIOR_STD[metric]
    ours = max(prior, std) if trials > 1 else prior
    return math.sqrt(ours**2 / trials + prior**2 + DIGIT_STD**2)


def verdict(metric: str, difference: float, std: float, trials: int) -> str:
    """`match`, `below`, `above` or `inconclusive` for ours − reported (per cent) over `trials` ≥ 1 trials."""
    half, bound = Z_95 * standard_error(metric, std, trials), BOUND[metric]
    if abs(difference) + half <= bound:
        return MATCH
    if difference + half < -bound:
        return BELOW
    if difference - half > bound:
        return ABOVE
    return INCONCLUSIVE
