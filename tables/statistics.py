"""Statistics of paired trials: what one seed gives in two settings is a pair, and differences are what is tested.

And of points of several methods: how y follows x over seeds, and what a line through some methods says of another.

SciPy takes a quarter of a second to import, and only a finished study needs its distributions: imported where used.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Paired(NamedTuple):
    """A mean difference, its 95 % interval, the two-sided p of the paired t-test and the number of pairs."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(differences: Sequence[float], level: float = 0.95) -> Paired:
    """The paired t-test of at least two differences, and the interval of their mean; NaN where one of them is."""
    from scipy.special import stdtr, stdtrit

    n = len(differences)
    if any(map(math.isnan, differences)):
        return Paired(math.nan, math.nan, math.nan, math.nan, n)
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


def holm(p_values: Sequence[float], alpha: float = 0.025) -> list[bool]:
    """Which hypotheses fall when all errors together stay within `alpha` (Holm 1979, step-down).

    2.5 % on one side is where the 95 % interval of a verdict ends, too. One whose p is NaN stands, and counts.
    """
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if not p_values[i] <= alpha / (len(order) - rank):
            break
        rejected[i] = True
    return rejected


class Estimate(NamedTuple):
    """A number and its standard error; NaN is what there is too little for."""

    value: float
    error: float


FEWEST = 3  # methods, of which the others leave a line to fit when one is left out
Points = Mapping[str, Mapping[int, tuple[float, float]]]  # of each method by seed: x and y


def correlation_within(points: Points) -> float:
    """Pearson's r over seeds, each method's means taken out; NaN of fewer than three seeds beyond one a method."""
    pairs = []
    for of_method in points.values():
        means = [statistics.fmean(values) for values in zip(*of_method.values(), strict=True)]
        pairs += [[value - mean for value, mean in zip(pair, means, strict=True)] for pair in of_method.values()]
    if len(pairs) - len(points) < 3:
        return math.nan
    return correlation(*zip(*pairs, strict=True))


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's r; NaN where one side is constant or not a number."""
    if any(map(math.isnan, (*x, *y))):
        return math.nan
    try:
        return statistics.correlation(x, y)
    except statistics.StatisticsError:
        return math.nan


def left_out(points: Points, fit: Callable[[Sequence[float], Sequence[float]], tuple[float, float]]) -> float:
    """The mean absolute error with which a line through all other methods' points predicts y of a method's.

    Methods count alike, however many seeds they have. NaN of fewer than `FEWEST`.

    Args:
        fit: x and y to slope and intercept.
    """
    if len(points) < FEWEST:
        return math.nan
    errors = []
    for method, of_method in points.items():
        others = [pair for name, of_other in points.items() if name != method for pair in of_other.values()]
        slope, intercept = fit([x for x, _ in others], [y for _, y in others])
        errors.append(statistics.fmean(abs(y - slope * x - intercept) for x, y in of_method.values()))
    return statistics.fmean(errors)


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept by least squares; flat where x does not vary."""
    return statistics.linear_regression(x, y) if len(set(x)) > 1 else mean_alone(x, y)


def mean_alone(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The line that knows nothing of x."""
    return 0.0, statistics.fmean(y)


def jackknife(statistic: Callable[[Points], float], points: Points) -> Estimate:
    """A statistic of methods' points, and its standard error over seeds, one left out of all methods at a time."""
    seeds = sorted({seed for of_method in points.values() for seed in of_method})
    found = []
    for out in seeds:
        rest = {name: {seed: pair for seed, pair in of.items() if seed != out} for name, of in points.items()}
        found.append(statistic({name: of_method for name, of_method in rest.items() if of_method}))
    n = len(found)
    error = (
        math.sqrt((n - 1) / n * sum((value - statistics.fmean(found)) ** 2 for value in found)) if n > 1 else math.nan
    )
    return Estimate(statistic(points), error)
