import dataclasses
import math
import subprocess
import sys

import pytest

import tables
from resim_bench import evidence, record
from tables import compare, studies
from tables.statistics import paired

RESIM = ("in100-resim-c4", "voc-full")  # reported 55.9 / 81.3 / 62.1
SETTING = {"epochs": [500, 1]}


def lines(records, table="in100-voc", pretrain="in100-resim-c4"):
    frame = tables.collect(records)
    return frame[(frame.table == table) & (frame.pretrain == pretrain)].set_index("metric")


def test_the_papers_rows_take_the_ap_of_rounded_detections_and_ours_take_the_others(make_record):
    for names, table, expected in ((RESIM, "in100-voc", 55.0), (("mini-resim-c4", "mini-voc-full"), "mini", 56.0)):
        entry = make_record(*names, ap=56.0)
        entry["metrics"][record.PRINTED + "AP"] = 55.0
        assert lines([entry], table, names[0]).loc[["AP"]].ours.dropna().tolist() == [expected]


def test_the_frame_has_every_number_of_the_tables_once():
    frame = tables.collect([])
    assert len(frame) == 3 * (4 + 5 + 5 + 14 + 3 + 6 + 6 + 6 + 10 + 12 + 14 + 6 + 3) + 6 * (9 + 9 + 10 + 5 + 9 + 2 + 6)
    assert not frame.duplicated(["table", "row", "metric"]).any()
    assert frame.reported.notna().sum() == 186


def test_without_a_record_unverified_and_ours_without_verdict():
    frame = tables.collect([])
    verdicts = frame.set_index(["table", "label"]).verdict
    assert set(verdicts["coco-1x", "VADeR"]) == set(verdicts["in1k-voc", "BoWNet"]) == {"no checkpoint"}
    assert set(verdicts["coco-2x", "VADeR"]) == {compare.NO_VERDICT}, "the paper has dashes there"
    unavailable = frame.label.isin(["VADeR", "BoWNet"])
    assert set(frame[frame.reported.notna() & ~unavailable].verdict) == {"unverified"}
    assert set(frame[frame.table.isin(["mini", "coco-frozen", "variants-voc"])].verdict) == {compare.NO_VERDICT}
    assert frame.ours.isna().all()
    assert (frame.trials == 0).all()
    assert set(frame.ran) == {""}


# one trial a side: 1.96 · sqrt(0.2² + 0.2² + 0.05²/3) = 0.557, so a match within ± 0.443, outside beyond ± 1.557
@pytest.mark.parametrize(
    ("offset", "verdict"),
    [
        (0, "match"),
        (0.44, "match"),
        (-0.44, "match"),
        (0.45, "inconclusive"),
        (-0.45, "inconclusive"),
        (1.55, "inconclusive"),
        (1.57, "above"),
        (-1.55, "inconclusive"),
        (-1.57, "below"),
    ],
)
def test_verdict_of_one_trial(make_record, offset, verdict):
    line = lines([make_record(*RESIM, ap=55.9 + offset)]).loc["AP"]
    assert line.verdict == verdict
    assert line.difference == pytest.approx(offset, abs=1e-9)
    assert line.ours == 55.9 + offset
    assert line.trials == 1
    assert math.isnan(line["std"])


def test_each_metric_has_its_own_difference(make_record):
    of_metric = lines([make_record(*RESIM, ap=56.0, ap50=80.3, ap75=65.9)])
    assert list(of_metric.difference.round(6)) == [0.1, -1.0, 3.8]
    assert list(of_metric.verdict) == ["match", "inconclusive", "above"]


def test_trials_average_and_narrow_the_interval(make_record):
    records = [make_record(*RESIM, ap=56.4 + d, seeds=(i, i)) for i, d in enumerate((-0.1, 0.0, 0.1, 0.0))]
    line = lines(records).loc["AP"]
    assert (line.ours, line.trials) == (pytest.approx(56.4), 4)
    assert line["std"] == pytest.approx(math.sqrt(0.02 / 3))
    assert line.verdict == "match", "0.5 ± 0.442; one trial with ± 0.557 is inconclusive"
    assert lines(records[1:2]).loc["AP"].verdict == "inconclusive"


def test_a_wide_spread_widens_the_interval(make_record):
    records = [make_record(*RESIM, ap=55.9 + d, seeds=(i, i)) for i, d in enumerate((-3, 3))]
    assert lines(records).loc["AP"].verdict == "inconclusive"


def test_a_deviating_run_is_shown_but_not_compared(make_record):
    of_metric = lines([make_record(*RESIM, ap=55.9, deviations=SETTING)])
    assert set(of_metric.verdict) == {"deviates"}
    assert of_metric.difference.isna().all()
    assert of_metric.loc["AP"].ours == 55.9
    assert of_metric.loc["AP"].deviations == ("pretrain.epochs 500 → 1",)


def test_a_deviating_transfer_deviates_too(make_record):
    one = make_record(*RESIM)
    one["transfer"]["deviations"] = {"max_iters": [24000, 60]}
    line = lines([one]).loc["AP"]
    assert (line.verdict, line.deviations) == ("deviates", ("transfer.max_iters 24000 → 60",))


def test_only_canonical_records_count_if_there_are_any(make_record):
    records = [
        make_record(*RESIM, ap=1.0, deviations=SETTING),
        make_record(*RESIM, ap=55.9),  # the same trial, committed
        make_record(*RESIM, ap=2.0, seeds=(1, 1), deviations=SETTING),
    ]
    line = lines(records).loc["AP"]
    assert (line.ours, line.trials, line.verdict, line.deviations) == (55.9, 1, "match", ())


def test_one_trial_counts_once_and_the_first_root_is_believed(make_record, tmp_path):
    record.write(tmp_path / "work_dirs", make_record(*RESIM, ap=56.0))
    record.write(tmp_path / "committed", make_record(*RESIM, ap=40.0))
    record.write(tmp_path / "committed", make_record(*RESIM, ap=57.0, seeds=(0, 1)))
    line = lines(evidence.read_all(tmp_path / "work_dirs", tmp_path / "committed")).loc["AP"]
    assert (line.ours, line.trials) == (56.5, 2)


def test_an_experiment_of_two_tables_fills_both(make_record):
    records = [make_record(*RESIM, ap=55.9)]
    for table in ("in100-voc", "windows-full"):
        assert lines(records, table).loc["AP"].ours == 55.9
    assert lines(records, "windows-frozen").loc["AP"].trials == 0


def test_mini_has_values_but_no_verdict(make_record):
    line = lines([make_record("mini-resim-c4", "mini-voc-full", ap=9.0)], "mini", "mini-resim-c4")
    full = line[line.transfer == "mini-voc-full"].loc["AP"]
    assert (full.ours, full.verdict) == (9.0, compare.NO_VERDICT)
    assert math.isnan(full.difference)


def test_no_torch_is_imported_by_the_tables_and_what_they_need():
    code = (
        "import sys, tables, resim_bench.record, resim_bench.experiments; tables.report([]); "
        "print(sorted({'torch', 'torchvision', 'mmengine', 'mmdet'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, resim_bench.record, resim_bench.experiments; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", "the command line starts without pandas"


def test_pretrainings_are_averaged_first(make_record):
    seeds = [(0, 0), (0, 1), (0, 2), (1, 0)]
    records = [make_record(*RESIM, ap=ap, seeds=s) for ap, s in zip((55.0, 55.1, 55.2, 57.1), seeds, strict=True)]
    line = lines(records).loc["AP"]
    assert (line.ours, line.trials, line.pretrainings) == (pytest.approx(56.1), 4, 2)
    assert line["std"] == pytest.approx(2 / math.sqrt(2))
    assert line.error == pytest.approx(math.sqrt(1 + 0.04 + 0.0025 / 3))
    assert (line.low, line.high) == (pytest.approx(0.2 - 1.96 * line.error), pytest.approx(0.2 + 1.96 * line.error))


def test_the_papers_trials_count(make_record):
    moco = lines([make_record("given-moco", "voc-full", ap=56.0)], "in1k-voc", "given-moco").loc["AP"]
    assert moco.error == pytest.approx(math.sqrt(0.04 + 0.04 / 5 + 0.0025 / 3))


def test_coco_has_its_own_metrics(make_record, at_the_paper):
    frame = tables.collect(at_the_paper(0.1))
    coco = frame[frame.table.isin(["coco-1x", "coco-2x"]) & frame.reported.notna() & (frame.pretrain != "")]
    assert len(coco) == 6 * 16
    assert set(coco.verdict) == {"match"}
    assert coco.difference.round(9).eq(0.1).all()


def test_released_weights_stand_in_only_where_nothing_else_ran(make_record):
    own = make_record("in1k-moco-v2-200ep", "voc-full", ap=57.0)
    released = [make_record("given-moco-v2", "voc-full", ap=56.0 + i, seeds=(0, i)) for i in range(2)]
    line = lines(released, "in1k-voc", "in1k-moco-v2-200ep").loc["AP"]
    assert (line.ran, line.ours, line.trials) == ("given-moco-v2", 56.5, 2)
    line = lines([*released, own], "in1k-voc", "in1k-moco-v2-200ep").loc["AP"]
    assert (line.ran, line.ours, line.trials) == ("in1k-moco-v2-200ep", 57.0, 1), "never mixed"
    short = make_record("in1k-moco-v2-200ep", "voc-full", ap=1.0, deviations=SETTING)
    line = lines([*released, short], "in1k-voc", "in1k-moco-v2-200ep").loc["AP"]
    assert (line.ran, line.ours, line.deviations) == ("given-moco-v2", 56.5, ()), "what followed its protocol first"


def test_deltas_are_those_that_the_paper_prints(at_the_paper, make_record):
    frame = tables.collect(at_the_paper(0.3)).set_index(["table", "label", "metric"])
    assert frame.reported_delta["in100-voc", "ReSim-C4", "AP"] == pytest.approx(1.5)
    assert frame.delta["in100-voc", "ReSim-C4", "AP"] == pytest.approx(1.5)
    assert math.isnan(frame.reported_delta["in100-voc", "MoCo-v2", "AP"])
    assert math.isnan(frame.delta["in1k-voc", "random init.", "AP"])
    assert frame.delta["coco-2x", "ReSim-FPN", "mask_AP75"] == pytest.approx(0.9)
    assert frame.reported_delta[frame.index.get_level_values(0) == "windows-full"].isna().all()
    records = [
        make_record("in100-moco-v2", "voc-full", ap=54.4, deviations=SETTING),
        make_record(*RESIM, ap=55.9),
    ]
    assert math.isnan(lines(records).loc["AP"].delta), "the row that is subtracted deviates"


# ---------------------------------------------------------------- the protocols of today


@pytest.mark.parametrize("side", ["pretrain", "transfer"])
def test_another_protocol_deviates_on_either_side(make_record, no_pinned_protocols, side):
    one = make_record(*RESIM, ap=55.9)
    no_pinned_protocols[side][one[side]["id"]] = record.digest({"batch": 16})
    assert lines([one]).loc["AP"].verdict == "match"
    one[side]["protocol"]["batch"] = 17
    line = lines([one]).loc["AP"]
    assert line.verdict == "deviates"
    assert line.deviations == (f"{side}.protocol is another than {one[side]['id']}'s of today",)
    assert math.isnan(line.difference)
    del no_pinned_protocols[side][one[side]["id"]]
    assert lines([one]).loc["AP"].verdict == "match", "what is not pinned is not checked"


def test_a_named_deviation_is_not_named_twice(make_record, no_pinned_protocols):
    no_pinned_protocols["pretrain"]["in100-resim-c4"] = record.digest({"batch": 256})
    line = lines([make_record(*RESIM, deviations=SETTING)]).loc["AP"]
    assert line.deviations == ("pretrain.epochs 500 → 1",)


def test_rows_are_compared_seed_by_seed_with_those_of_their_group(make_record):
    def trial(method, setting, seed, ap):
        names = f"photos-{method}", f"photos-cards-{setting}"
        return make_record(*names, metrics={"AP": ap, "AP50": ap, "AP75": ap}, seeds=(seed, seed))

    records = [
        *(trial("moco-v2", "full", seed, 40.0 + seed) for seed in (1, 2, 3)),
        *(trial("resim-c4", "full", seed, 41.0 + seed) for seed in (1, 2, 3)),
        *(trial("moco-v2", "frozen", seed, 10.0 * seed) for seed in (1, 2, 3)),
        *(trial("resim-c4", "frozen", seed, 10.0 * seed + seed) for seed in (1, 2)),
        trial("random", "frozen", 1, 5.0),
    ]

    def found(records):
        frame = tables.collect(records)
        lines = frame[(frame.table == "photos-cards") & (frame.metric == "AP")].itertuples()
        return {(line.label, line.group): line.versus for line in lines}

    versus = found(records)
    assert versus["ReSim-C4", "full fine-tuning"] == {"MoCo-v2": paired([1.0, 1.0, 1.0])}
    assert versus["ReSim-C4", "frozen backbone"] == {"MoCo-v2": paired([1.0, 2.0])}, "one seed is no pair"
    assert versus["MoCo-v2", "frozen backbone"] == {}
    for one in records:
        if one["pretrain"]["id"] == "photos-moco-v2":
            one["pretrain"]["deviations"] = {"epochs": [4, 1]}
    assert not any(found(records).values()), "what deviates is not compared with what does not"
    for one in records:
        one["pretrain"]["deviations"] = {"epochs": [4, 1]}
    assert found(records) == versus, "but with what deviates alike"


def test_a_row_is_compared_with_one_of_another_group_where_its_own_has_none(make_record):
    ids = ("mini-moco-v2", "mini-resim-c4", "mini-resim-c4-permuted")
    metrics = [dict.fromkeys(("AP", "AP50", "AP75"), ap) for ap in (10.0, 16.0, 8.0)]
    plan = studies.load_studies()["mini-controls"].seeds
    records = [
        make_record(id, "mini-voc-frozen", metrics=of_row, seeds=seeds)
        for id, of_row in zip(ids, metrics, strict=True)
        for seeds in [(seed, seed) for seed in (*plan[:2], plan.stop)] + [plan[:2]]
    ]
    frame = tables.collect(records)
    lines = frame[(frame.table == "mini-controls") & (frame.metric == "AP")].set_index("label")
    assert lines.versus["windows permuted"] == {"MoCo-v2": paired([-2.0, -2.0]), "ReSim-C4": paired([-8.0, -8.0])}
    assert lines.versus["ReSim-C4"] == {"MoCo-v2": paired([6.0, 6.0])}
    assert set(lines.trials[:3]) == {2}, "the plan's seeds alone: where nothing is claimed, rows are compared"
    assert set(frame[(frame.table == "mini") & (frame.metric == "AP") & (frame.ours > 0)].trials) == {4}


def test_a_row_has_what_an_earlier_edition_found(make_record, monkeypatch):
    """By its name, at each metric, whichever seeds either edition has."""
    names = "mini-resim-c4", "mini-voc-frozen"
    records = [make_record(*names, ap, ap + 10, ap - 5, seeds=(seed, seed)) for seed, ap in ((1, 15.0), (2, 17.0))]
    later = make_record(*names, 20.0, seeds=(11, 11))
    later["pretrain"]["protocol"] = {"batch": 17}
    plan = studies.load_studies()["mini-first"]
    pinned = {side: {records[0][side]["id"]: record.digest(records[0][side]["protocol"])} for side in plan.pinned}
    monkeypatch.setattr(studies, "load_studies", lambda: {"first": dataclasses.replace(plan, pinned=pinned)})
    frame = tables.collect([*records, later])
    mini = frame[frame.table == "mini"].set_index(["name", "metric"])
    row = "ReSim-C4 (frozen backbone)"
    spread = pytest.approx(math.sqrt(2))
    assert {metric: mini.earlier[row, metric] for metric in ("AP", "AP50", "AP75")} == {
        "AP": (16.0, spread),
        "AP50": (26.0, spread),
        "AP75": (11.0, spread),
    }
    assert mini.ours[row, "AP"] == 20.0 and math.isnan(mini.earlier["MoCo-v2 (frozen backbone)", "AP"][0])
    assert all(math.isnan(mean) for mean, _ in frame[frame.table.isin(["mini-first", "in100-voc"])].earlier)
    assert tables.load_tables()["mini"].earlier == "mini-first"
