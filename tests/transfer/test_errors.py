"""What errors cost: a case of each kind by hand. The certificate compares with TIDE's own program."""

import math

import numpy as np
import pytest

from resim_bench.record import ERRORS
from tests.conformance.detection import with_errors
from transfer import errors
from transfer.detections import Detections, Found, Images, Truth

BOX = (10, 10, 30, 30)
HALF = (10, 10, 30, 20)  # an IoU of .5 with BOX
THIRD = (20, 10, 40, 30)  # of 1/3
TENTH = (10, 10, 30, 12)  # of .1
FAR = (50, 50, 70, 70)


def case(truth, found, images=2, classes=2):
    """Objects (image, label, box[, ignored]) and detections (image, label, box, score)."""

    def column(rows, place, dtype, shape=(-1,)):
        return np.array([row[place] for row in rows], dtype).reshape(shape)

    def places(rows):
        return column(rows, 0, np.int64), column(rows, 1, np.int64), column(rows, 2, np.float32, (-1, 4))

    ignored = np.array([len(row) > 3 for row in truth], bool)
    return Detections(
        Images(tuple(range(images)), np.full((images, 2), 80)),
        tuple(map(str, range(classes))),
        Truth(*places(truth), ignored, np.full(len(truth), 400.0), None),
        Found(*places(found), column(found, 3, np.float32), None),
    )


def costs(*sides, **keywords):
    """AP, and what costs anything."""
    found = errors.costs(case(*sides), **keywords)
    assert tuple(found) == ERRORS
    return {name: value for name, value in found.items() if name == "AP" or value}


def about(**values):
    return pytest.approx(values, abs=1e-9)


def test_a_detection_in_the_wrong_place_costs_all_where_it_is_the_only_one():
    assert costs([(0, 0, BOX)], [(0, 0, THIRD, 0.9)]) == about(AP=0, localisation=100)


def test_so_does_one_of_the_wrong_class():
    # Without its object, class 0 is left out, and class 1 has none: no class is left.
    assert costs([(0, 0, BOX)], [(0, 1, BOX, 0.9)]) == about(AP=0, classification=100, false_negatives=100)


def test_one_that_is_wrong_in_both_costs_its_class_the_precision():
    truth = [(0, 0, BOX), (1, 1, BOX)]
    found = [(0, 1, THIRD, 0.9), (1, 1, BOX, 0.5)]
    # Class 0 has nothing and class 1 a precision of 1/2: 25. Without the error class 1 has 100; without the object,
    # class 0 is left out. Precision without false positives is 1, recall without false negatives is that of class 1.
    expected = about(AP=25, both=25, missed=25, false_positives=25, false_negatives=25)
    assert costs(truth, found) == expected


def test_a_duplicate_costs_the_precision_behind_it():
    truth = [(0, 0, BOX), (1, 0, BOX)]
    found = [(0, 0, BOX, 0.9), (0, 0, (10, 10, 30, 28), 0.8), (1, 0, BOX, 0.7)]
    # Up to a recall of 1/2 (51 points) precision is 1, then 2/3 (50 points).
    lost = 100 * 50 / 101 / 3
    assert costs(truth, found) == about(AP=100 - lost, duplicate=lost, false_positives=lost)


def test_a_detection_of_background_costs_the_precision_behind_it():
    for other in (FAR, TENTH):  # a tenth of an object of another class, or of none
        truth, found = [(0, 0, BOX), (1, 1, BOX)], [(0, 1, other, 0.9), (0, 0, BOX, 0.9), (1, 1, BOX, 0.5)]
        assert costs(truth, found) == about(AP=75, background=25, false_positives=25)


def test_a_missed_object_costs_the_recall():
    lost = 100 * 50 / 101
    assert costs([(0, 0, BOX), (1, 0, BOX)], [(0, 0, BOX, 0.9)]) == about(
        AP=100 - lost, missed=lost, false_negatives=lost
    )


def test_thresholds_belong_to_a_side():
    assert costs([(0, 0, BOX)], [(0, 0, HALF, 0.9)]) == about(AP=100)
    assert costs([(0, 0, BOX)], [(0, 0, HALF, 0.9)], iou=0.75) == about(AP=0, localisation=100)
    assert costs([(0, 0, BOX)], [(0, 0, TENTH, 0.9)]) == about(AP=0, localisation=100)
    assert "classification" in costs([(0, 0, BOX)], [(0, 1, HALF, 0.9)])
    assert costs([(0, 0, BOX)], [(0, 0, THIRD, 0.9)], background=0.3) == about(AP=0, localisation=100)
    assert costs([(0, 0, BOX)], [(0, 0, THIRD, 0.9)], background=0.4) == about(AP=0)


def test_of_all_errors_at_an_object_the_best_scored_is_mended():
    found = [(0, 0, THIRD, 0.6), (0, 0, TENTH, 0.8), (0, 1, BOX, 0.7)]
    # The one of another class would cost as much, were it not for the one with .8.
    assert costs([(0, 0, BOX)], found) == about(AP=0, localisation=100)


def test_what_is_nearest_to_a_matched_object_goes():
    found = [(0, 0, THIRD, 0.9), (0, 0, BOX, 0.8)]
    half = 100 * 51 / 101  # recall 1/2 at precision 1; here precision is 1/2
    of_recall = 50 - half / 2
    expected = about(
        AP=half / 2,
        localisation=half / 2,
        missed=of_recall,
        false_positives=half / 2,
        false_negatives=of_recall,
    )
    assert costs([(0, 0, BOX), (1, 0, BOX)], found) == expected


def test_an_ignored_object_is_no_error_and_hides_detections_of_its_class_that_lie_in_it():
    truth = [(0, 0, BOX), (0, 0, FAR, "ignored")]
    assert costs(truth, [(0, 0, BOX, 0.5), (0, 0, (50, 50, 54, 54), 0.9)]) == about(AP=100)
    for other in ((0, 0, (54, 40, 58, 60), 0.9), (1, 0, FAR, 0.9)):  # half of it outside; in another image
        expected = about(AP=50, background=50, false_positives=50)
        assert costs(truth, [(0, 0, BOX, 0.5), other]) == expected
    truth = [(0, 0, BOX), (0, 1, FAR), (1, 0, BOX, "ignored")]
    found = [(0, 0, BOX, 0.5), (0, 1, FAR, 0.5), (1, 1, BOX, 0.9)]
    assert costs(truth, found) == about(AP=75, background=25, false_positives=25)


def test_what_is_ignored_can_be_made_right():
    truth = [(0, 0, BOX), (0, 0, THIRD, "ignored")]
    assert costs(truth, [(0, 0, THIRD, 0.9)]) == about(AP=0, localisation=100, false_negatives=100)


def test_without_detections_all_is_missed():
    assert costs([(0, 0, BOX), (1, 1, BOX)], []) == about(AP=0, missed=100, false_negatives=100)


@pytest.mark.parametrize("truth", [[], [(0, 0, BOX, "ignored")]])
def test_without_an_object_there_is_no_number(truth):
    assert all(math.isnan(value) for value in errors.costs(case(truth, [(0, 0, BOX, 0.9)])).values())


def test_equal_scores_keep_their_order():
    first, last = [(0, 0, FAR, 0.5), (0, 0, BOX, 0.5)], [(0, 0, BOX, 0.5), (0, 0, FAR, 0.5)]
    assert costs([(0, 0, BOX)], first) == about(AP=50, background=50, false_positives=50)
    assert costs([(0, 0, BOX)], last) == about(AP=100)
    other_image = [(1, 0, FAR, 0.5), (0, 0, BOX, 0.5)]
    assert costs([(0, 0, BOX)], other_image) == about(AP=100), "images come first"


def test_of_two_equal_detections_the_first_has_the_object():
    assert costs([(0, 0, BOX)], [(0, 0, BOX, 0.5), (0, 0, HALF, 0.5)]) == about(AP=100)
    found = [(0, 0, THIRD, 0.5), (0, 1, BOX, 0.5)]
    assert costs([(0, 0, BOX)], found) == about(AP=0, localisation=100)


def test_a_class_without_objects_is_left_out_and_its_detections_can_be_mended():
    truth = [(0, 0, BOX), (1, 0, BOX)]
    found = [(0, 0, BOX, 0.9), (1, 2, BOX, 0.8), (1, 2, FAR, 0.9)]
    ap = 100 * 51 / 101
    expected = about(AP=ap, classification=100 - ap, false_negatives=100 - ap)
    assert {k: v for k, v in errors.costs(case(truth, found, classes=3)).items() if k == "AP" or v} == expected


def test_a_class_that_loses_its_last_object_has_nothing_as_long_as_it_has_detections():
    truth, right = [(0, 0, BOX), (1, 1, BOX)], [(0, 0, BOX, 0.9)]
    assert costs(truth, right) == about(AP=50, missed=50, false_negatives=50)
    assert costs(truth, [*right, (1, 1, FAR, 0.9)]) == about(AP=50)


def test_a_record_has_boxes_and_masks_at_two_thresholds_and_no_cost_is_negative():
    found = errors.analysis(with_errors("error_costs"))
    assert {kind: list(of) for kind, of in found.items()} == {"box": ["0.5", "0.75"], "mask": ["0.5", "0.75"]}
    assert found["mask"]["0.75"] == errors.costs(with_errors("error_costs"), 0.75, masks=True)
    assert all(0 <= value <= 100 for of in found.values() for costs in of.values() for value in costs.values())
    assert list(errors.analysis(case([(0, 0, BOX)], []))) == ["box"]
