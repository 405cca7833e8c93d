"""What `make regress` says of fixture records, and when it fails."""

import dataclasses
import importlib
import re

import pytest

import tables
from resim_bench import record
from tables.claims import gains

MOCO = ("in1k-moco-v2-200ep", "voc-full")  # published; reported 57.0 / 82.4 / 63.6, a mean of five trials
FPN = ("in1k-resim-fpn-200ep-release", "voc-full")  # published; reported 59.2 / 82.9 / 65.9
C4 = ("in100-resim-c4", "voc-full")  # inferred; reported 55.9 / 81.3 / 62.1


@pytest.fixture
def regress(tmp_path):
    """Runs `tables.regress` on new and kept records."""

    def run(new=(), kept=()):
        for place, records in (("new", new), ("kept", kept)):
            for one in records:
                record.write(tmp_path / place, one)
        text, code = tables.regress(tmp_path / "new", tmp_path / "kept")
        assert max(map(len, text.splitlines())) <= 105
        return re.sub(r"[ \n]+", " ", text), code

    return run


def coverage(text):
    return re.search(r"\d+ of 186 numbers verified, \d+ of 37 rows.*?\.", text)[0]


def test_nothing_has_run(regress):
    text, code = regress()
    assert coverage(text) == "0 of 186 numbers verified, 0 of 37 rows; 9 have no public checkpoint."
    assert text.endswith("No regression: no AP of a row with a published recipe has been compared yet. ")
    assert code == 0


def test_at_the_reported_values(regress, at_the_paper):
    text, code = regress(at_the_paper())
    assert coverage(text) == "177 of 186 numbers verified, 35 of 37 rows (177 match); 9 have no public checkpoint."
    assert "81 gains of ReSim over MoCo-v2 judged, where an offset of framework cancels: 81 match." in text
    assert "No regression: none of 21 AP of published recipes is below the paper (95 %, Holm)." in text
    assert code == 0


def test_one_row_is_one_row_though_it_stands_at_1x_and_2x(regress, make_record, at_the_paper):
    coco = [one for one in at_the_paper() if one["transfer"]["id"].startswith("coco-1x")]
    text, _ = regress(coco)
    assert coverage(text).startswith("48 of 186 numbers verified, 0 of 37 rows"), "2x is missing"


# One trial of ours, five of the paper's: 1.96 · √(0.2² + 0.2²/5 + 0.05²/3) = 0.4331; outside beyond 1.4331
@pytest.mark.parametrize(
    ("offset", "listed", "code"),
    [
        (-0.56, None, 0),  # just inside
        (-0.57, "inconclusive", 0),
        (-1.43, "inconclusive", 0),
        (-1.44, "below", 1),  # just outside
        (1.44, "above", 0),
    ],
)
def test_just_inside_and_just_outside(regress, make_record, offset, listed, code):
    text, found = regress([make_record(*MOCO, 57.0 + offset, 82.4, 63.6)])
    lines = re.findall(r"MoCo-v2 AP 57\.0 (\S+) (\S+) (\S+) … (\S+) (\w+) published", text)
    assert [line[-1] for line in lines] == ([listed] if listed else [])
    assert found == code
    assert ("Regression: MoCo-v2 AP in in1k-voc below the paper (95 %, Holm over 1 AP" in text) == bool(code)


def test_below_at_another_metric_or_an_inferred_recipe_is_no_regression(regress, make_record):
    text, code = regress([make_record(*MOCO, 57.0, 70.0, 50.0), make_record(*C4, 40.0, 81.3, 62.1)])
    assert "MoCo-v2 AP50 82.4 70.0 −12.4" in text
    assert "ReSim-C4 AP 55.9 40.0 −15.9" in text
    assert "No regression: none of 1 AP" in text
    assert code == 0


def test_holm_asks_more_of_each_where_many_are_compared(regress, make_record, at_the_paper):
    others = [one for one in at_the_paper() if (one["pretrain"]["id"], one["transfer"]["id"]) != MOCO]
    text, code = regress([*others, make_record(*MOCO, 57.0 - 1.44, 82.4, 63.6)])
    assert re.search(r"MoCo-v2 AP 57\.0 55\.6 −1\.4 \S+ … \S+ below published", text)
    assert "No regression: none of 21 AP of published recipes" in text
    assert code == 0
    text, code = regress([make_record(*MOCO, 57.0 - 1.75, 82.4, 63.6)])  # p .0003 < .025 / 21
    assert "Regression: MoCo-v2 AP in in1k-voc below the paper (95 %, Holm over 21 AP" in text
    assert code == 1


def test_box_and_mask_ap_both_count(regress, make_record, at_the_paper):
    coco = next(one for one in at_the_paper() if (one["transfer"]["id"], one["pretrain"]["id"]) == ("coco-2x", FPN[0]))
    for metric, heading in (("mask_AP", "APᵐᵏ"), ("box_AP", "APᵇᵇ")):
        text, code = regress([coco | {"metrics": coco["metrics"] | {metric: 30.0}}])
        assert f"Regression: ReSim-FPN {heading} in coco-2x below the paper" in text
        assert code == 1


def test_deviating_by_name_and_by_digest(regress, make_record, no_pinned_protocols):
    no_pinned_protocols["transfer"]["voc-full"] = "0" * 64
    text, code = regress(
        [make_record(*MOCO, 20.0, deviations={"epochs": [200, 1]}), make_record(*FPN, 20.0)],
    )
    assert "6 deviate and are not compared" in coverage(text)
    assert "• MoCo-v2 (in1k-voc) deviates: pretrain.epochs 200 → 1; transfer.protocol is another" in text
    assert "• ReSim-FPN (in1k-voc) deviates: transfer.protocol is another than voc-full's of today." in text
    assert code == 0


def test_a_changed_reported_number_is_caught(regress, make_record, monkeypatch):
    kept = [make_record(*MOCO, 57.0, 82.4, 63.6)]
    assert regress(kept=kept)[1] == 0
    changed = tables.load_tables()
    table = changed["in1k-voc"]
    rows = [
        dataclasses.replace(row, reported=row.reported | {"AP": 59.0}) if row.label == "MoCo-v2" else row
        for row in table.rows
    ]
    changed["in1k-voc"] = dataclasses.replace(table, rows=tuple(rows))
    monkeypatch.setattr(importlib.import_module("tables.collect"), "load_tables", lambda: changed)
    text, code = regress(kept=kept)
    assert "MoCo-v2 AP 59.0 57.0 −2.0" in text
    assert code == 1


# ---------------------------------------------------------------- gains


# Two rows of one trial each, MoCo-v2's reported number a mean of five: 1.96 · √(0.2² · 3.2 + 2 · 0.05²/3) = 0.7058
@pytest.mark.parametrize(
    ("offset", "verdict"), [(0.29, "match"), (-0.3, "inconclusive"), (1.70, "inconclusive"), (1.71, "above")]
)
def test_gains_have_the_errors_of_both_rows(make_record, offset, verdict):
    frame = tables.collect([make_record(*MOCO, 50.0, 82.4, 63.6), make_record(*FPN, 52.2 + offset, 82.9, 65.9)])
    line = gains(frame).set_index("metric").loc["AP"]
    assert (line.label, line.verdict) == ("ReSim-FPN", verdict)
    assert (line.reported, line.ours) == (pytest.approx(2.2), pytest.approx(2.2 + offset))
    assert line.high - line.low == pytest.approx(2 * 0.7058, abs=2e-4)
    assert set(frame[(frame.trials > 0) & (frame.metric == "AP")].verdict) == {"below"}, "an offset of both cancels"


def test_gains_need_both_rows_by_their_protocol(make_record):
    fpn, moco = make_record(*FPN), make_record(*MOCO, deviations={"epochs": [200, 1]})
    assert len(gains(tables.collect([fpn, moco]))) == 0
    assert len(gains(tables.collect([fpn]))) == 0
    assert len(gains(tables.collect([fpn, make_record(*MOCO)]))) == 3


# ---------------------------------------------------------------- new against kept


# One trial a side: 1.96 · 0.2 · √2 = 0.554
@pytest.mark.parametrize(("offset", "outcome"), [(-0.56, "worse"), (-0.55, "as before"), (0.56, "better")])
def test_a_new_record_against_kept_ones(regress, make_record, offset, outcome):
    kept = [make_record(*MOCO, 57.0, 82.4, 63.6)]
    text, code = regress([make_record(*MOCO, 57.0 + offset, 82.4, 63.6, seeds=(0, 1))], kept)
    if outcome == "as before":
        assert "3 numbers stand in kept records, too (1 experiment): 3 as before." in text
    else:
        assert f"3 numbers stand in kept records, too (1 experiment): 1 {outcome}, 2 as before." in text
        sign = "−" if offset < 0 else r"\+"
        assert re.search(rf"in1k-moco-v2-200ep voc-full AP 57\.0 \(1\) \S+ \(1\) {sign}0\.6 ± 0\.6 {outcome}", text)
    assert code == 0


def test_more_trials_narrow_the_comparison(regress, make_record):
    kept = [make_record(*MOCO, 57.0, 82.4, 63.6, seeds=(0, i)) for i in range(4)]
    new = [make_record(*MOCO, 56.7, 82.4, 63.6, seeds=(0, 4 + i)) for i in range(4)]
    assert "1 worse" in regress(new, kept)[0], "0.3 > 1.96 · √(2 · 0.2²/4) = 0.277"


def test_a_kept_record_is_not_held_against_itself(regress, make_record):
    records = [make_record(*MOCO, 57.0, 82.4, 63.6)]
    text, _ = regress(records, records)
    assert "kept records" not in text


def test_the_same_trial_with_another_outcome_is_new(regress, make_record):
    text, code = regress([make_record(*MOCO, 50.0, 82.4, 63.6)], [make_record(*MOCO, 57.0, 82.4, 63.6)])
    assert "1 worse, 2 as before" in text
    assert code == 1, "and the new one is believed"


def test_deviating_and_mini_records_are_not_held_against_kept_ones(regress, make_record):
    mini = ("mini-resim-c4", "mini-voc-full")
    new = [make_record(*MOCO, 20.0, deviations={"epochs": [200, 1]}, seeds=(0, 1)), make_record(*mini, 1.0)]
    text, code = regress(new, [make_record(*MOCO, 57.0, 82.4, 63.6), make_record(*mini, 9.0)])
    assert "kept records" not in text
    assert code == 0
