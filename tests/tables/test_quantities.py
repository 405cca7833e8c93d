"""What a claim asks of details: by hand."""

import math

import pytest

from tables.quantities import IOUS, localisation_less_classification, slope_over_iou


def detail(curve, localisation=5.0, classification=2.0):
    costs = {"localisation": localisation, "classification": classification}
    return {"box": {"by_iou": curve}, "errors": {"box": {"0.5": costs}}}


def test_localisation_less_classification():
    found = localisation_less_classification({"a": {1: detail({}, 5.0, 2.0), 2: detail({}, 4.0, 6.5)}, "b": {}})
    assert found == {"a": {1: 3.0, 2: -2.5}, "b": {}}


def test_a_ratio_that_doubles_in_each_tenth_is_a_slope_of_its_logarithm():
    flat = dict.fromkeys((*IOUS, "90", "95"), 8.0)
    rising = {iou: 8 * 2 ** ((int(iou) - 50) / 10) for iou in flat}
    found = slope_over_iou({"a": {1: detail(rising)}, "b": {1: detail(flat)}})
    assert found["a"][1] - found["b"][1] == pytest.approx(100 * math.log(2)) and found["b"][1] == pytest.approx(0)


def test_an_iou_at_which_a_row_has_less_than_1_ap_on_average_counts_for_none():
    curve = dict(zip(IOUS, (16.0, 8.0, 4.0, 2.0, 1.0, 0.0, 0.0, 0.0), strict=True))
    high = dict.fromkeys(IOUS, 16.0)
    seeds = {1: detail(curve), 2: detail(curve | {"70": 0.5})}  # of .70, 0.75 on average
    found = slope_over_iou({"a": seeds, "b": {1: detail(high), 2: detail(high)}})
    assert found["a"][1] == found["a"][2] == pytest.approx(100 * -2 * math.log(2)) and found["b"][1] == 0


def test_a_trial_without_any_has_a_logarithm_all_the_same():
    curve = dict.fromkeys(IOUS, 10.0)
    found = slope_over_iou({"a": {1: detail(curve), 2: detail({"50": 10.0, "55": 10.0})}})
    assert found["a"][1] == 0 and math.isfinite(found["a"][2]) and found["a"][2] < 0


def test_where_no_two_ious_are_left_there_is_no_slope():
    assert math.isnan(slope_over_iou({"a": {1: detail({"50": 3.0})}})["a"][1])
