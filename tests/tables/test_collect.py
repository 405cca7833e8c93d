import math
import subprocess
import sys

import pytest

import tables
from resim_bench import record
from tables import compare

RESIM = ("in100-resim-c4", "voc-full")  # reported 55.9 / 81.3 / 62.1
SETTING = {"epochs": [500, 1]}


def lines(records, table="in100-voc", pretrain="in100-resim-c4"):
    frame = tables.collect(records)
    return frame[(frame.table == table) & (frame.pretrain == pretrain)].set_index("metric")


def test_the_frame_has_every_number_of_the_tables_once():
    frame = tables.collect([])
    assert len(frame) == 3 * (4 + 5 + 5 + 6)
    assert not frame.duplicated(["table", "row", "metric"]).any()
    assert frame.reported.notna().sum() == 3 * (4 + 5 + 5)


def test_without_a_record_unverified_and_mini_without_verdict():
    frame = tables.collect([])
    assert set(frame[frame.table != "mini"].verdict) == {"unverified"}
    assert set(frame[frame.table == "mini"].verdict) == {compare.NO_VERDICT}
    assert frame.ours.isna().all()
    assert (frame.trials == 0).all()


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
    line = lines(record.read_all(tmp_path / "work_dirs", tmp_path / "committed")).loc["AP"]
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
