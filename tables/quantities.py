"""What a claim may ask beside metrics: numbers of a trial that the `detail` of its record makes.

Each takes details by row and seed, of all rows of a claim, and gives a number by row and seed.
"""

import math
import statistics
from collections.abc import Callable, Mapping

Details = Mapping[str, Mapping[int, dict]]
IOUS = ("50", "55", "60", "65", "70", "75", "80", "85")
LEAST = 1.0  # AP that the mean of every row has at an IoU which counts: below, a ratio is noise
FLOOR = 0.1  # AP of a single trial, so that its logarithm is one


def localisation_less_classification(details: Details) -> dict[str, dict[int, float]]:
    """AP that errors of localisation cost, less what those of classification do; boxes at an IoU of .5."""

    def of(detail: dict) -> float:
        costs = detail["errors"]["box"]["0.5"]
        return costs["localisation"] - costs["classification"]

    return {row: {seed: of(detail) for seed, detail in by_seed.items()} for row, by_seed in details.items()}


def slope_over_iou(details: Details) -> dict[str, dict[int, float]]:
    """Slope of 100 log box AP over the IoU, per .1, by least squares: the ratio of two rows rises by its difference.

    Of the IoU .50 to .85, where every row's mean is 1 AP at least.
    """
    curves = {row: [detail["box"]["by_iou"] for detail in by_seed.values()] for row, by_seed in details.items()}
    ious = [iou for iou in IOUS if all(_mean(of_row, iou) >= LEAST for of_row in curves.values())]

    def of(detail: dict) -> float:
        values = [100 * math.log(max(detail["box"]["by_iou"].get(iou, 0.0), FLOOR)) for iou in ious]
        return statistics.linear_regression([int(iou) / 10 for iou in ious], values).slope

    if len(ious) < 2:
        return {row: dict.fromkeys(by_seed, math.nan) for row, by_seed in details.items()}
    return {row: {seed: of(detail) for seed, detail in by_seed.items()} for row, by_seed in details.items()}


def _mean(curves: list[dict[str, float]], iou: str) -> float:
    return statistics.fmean(curve.get(iou, 0.0) for curve in curves) if curves else 0.0


QUANTITIES: dict[str, Callable[[Details], dict[str, dict[int, float]]]] = {
    "cost of localisation less that of classification": localisation_less_classification,
    "slope of log AP over the IoU": slope_over_iou,
}
