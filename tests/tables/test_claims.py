import pytest

import tables
from tables import claims
from tables.paper import load_statements

ABOVE, FROZEN, WINDOW, PRIOR = load_statements()


def outcomes(claim, records=(), side="reported"):
    return claims.check(tables.collect(records), claim, side)


def but_holding(claim, *arguments, **options):
    return [tuple(one) for one in outcomes(claim, *arguments, **options) if one.outcome != claims.HOLDS]


def test_resim_is_above_moco_but_for_a_tie():
    assert len(outcomes(ABOVE)) == 3 * (1 + 4 + 4 + 2) + 6 * (4 + 4)
    assert but_holding(ABOVE) == [("coco-2x", "ReSim-C4", "MoCo-v2", "box_AP50", "tie")]


def test_the_frozen_gap_is_larger_but_for_a_tie():
    assert len(outcomes(FROZEN)) == 3 * 4
    assert but_holding(FROZEN) == [("windows-frozen", "ReSim-C4 W16-S16", "MoCo-v2", "AP50", "tie")]


def test_the_best_window_is_not_everywhere_the_best():
    assert len(outcomes(WINDOW)) == 2 * 3 * 3
    assert but_holding(WINDOW) == [
        ("windows-full", "ReSim-C4 W48-S32", "ReSim-C4 W64-S48", "AP", "fails"),
        ("windows-full", "ReSim-C4 W48-S32", "ReSim-C4 W64-S48", "AP75", "fails"),
        ("windows-frozen", "ReSim-C4 W48-S32", "ReSim-C4 W64-S48", "AP50", "tie"),
    ]


def test_above_all_prior_methods_but_for_a_tie():
    assert len(outcomes(PRIOR)) == 2 * 12 * 3
    assert but_holding(PRIOR) == [("in1k-voc", "ReSim-C4", "DenseCL", "AP", "tie")]


# Of two single trials the error is 0.2 · √2, so differences beyond 1.96 · 0.283 = 0.554 count.
@pytest.mark.parametrize(
    ("gain", "outcome"), [(0.56, "holds"), (0.55, "tie"), (0.0, "tie"), (-0.55, "tie"), (-0.56, "fails")]
)
def test_ours_must_differ_by_more_than_noise(make_record, gain, outcome):
    records = [
        make_record("in100-moco-v2", "voc-frozen", 47.0),
        make_record("in100-resim-c4", "voc-frozen", 47.0 + gain),
    ]
    of_ap = [one for one in outcomes(ABOVE, records, "ours") if one.metric == "AP"]
    assert of_ap == [("windows-frozen", "ReSim-C4 W48-S32", "MoCo-v2", "AP", outcome)]


def test_a_gap_of_gaps_has_four_errors(make_record):
    def records(frozen):
        return [
            make_record(pretrain, transfer, 50.0 + frozen * (transfer == "voc-frozen" and "resim" in pretrain))
            for pretrain in ("in100-moco-v2", "in100-resim-c4")
            for transfer in ("voc-full", "voc-frozen")
        ]

    for gap, outcome in ((0.78, "tie"), (0.79, "holds"), (-0.79, "fails")):  # 1.96 · 0.2 · √4 = 0.784
        found = {one.metric: one.outcome for one in outcomes(FROZEN, records(gap), "ours")}
        assert found == {"AP": outcome, "AP50": "tie", "AP75": "tie"}
    assert outcomes(FROZEN, records(1)[1:], "ours") == [], "one of the four is missing"


def test_rows_that_deviate_do_not_count(make_record):
    records = [
        make_record("in100-moco-v2", "voc-frozen", 47.0),
        make_record("in100-resim-c4", "voc-frozen", 50.0, deviations={"epochs": [500, 1]}),
    ]
    assert outcomes(ABOVE, records, "ours") == []
