"""From measurements to a plan: what an id stands for, the arithmetic, the table."""

import itertools
import os
import signal
import time

import pytest
import torch

from resim_bench import experiments
from resim_bench.errors import UserError
from resim_bench.harness import progress
from resim_bench.machine import anchors, estimate, schedule
from resim_bench.machine.estimate import Machine, Measured, Run

CPU = Machine("2 x Xeon", cores=2, gpu=False, processes=1)
GPU = Machine("1 x H100", cores=16, gpu=True, processes=1)
# A step of 8 s, 256 images of 10 ms each.
PROBE = Measured(
    iterations=1000,
    batch=256,
    step=8.0,
    sample=0.01,
    workers=8,
    shared=400.0,
    once=30.0,
    memory=2**30,
    batch_memory=2**33,
    disk=3 * 2**20,
    measured=256,
)


def test_what_ids_stand_for():
    rows = [Run("pretrain", f"mini-{name}", 1) for name in ("random", "moco-v2", "resim-c4")]
    transfers = [Run("transfer", f"mini-voc-{name}", 15) for name in ("full", "frozen")]
    assert estimate.runs_of(["mini"], trials=5) == rows + transfers
    assert estimate.runs_of(["mini-moco-v2", "voc-full"], trials=3) == [
        Run("pretrain", "mini-moco-v2", 3),
        Run("transfer", "voc-full", 3),
    ]
    assert estimate.runs_of(["mini", "mini-moco-v2"], 2)[1] == Run("pretrain", "mini-moco-v2", 2), (
        "named, as often as asked"
    )
    assert estimate.runs_of(["coco-1x"]) == [Run("transfer", "coco-1x", 1)], "the protocol, not the table"


def test_a_table_leaves_out_weights_that_others_trained_and_rows_without():
    runs = estimate.runs_of(["table:coco-1x"])
    assert not [run for run in runs if run.id.startswith("given-")]
    assert {run.room for run in runs} == {"pretrain", "transfer"}
    assert sum(run.times for run in runs if run.id == "coco-1x") > len([r for r in runs if r.room == "pretrain"]) - 1


def test_an_unknown_id_is_refused():
    with pytest.raises(UserError, match="no id matches 'mini-mocco-v2': did you mean mini-moco-v2"):
        estimate.runs_of(["mini-mocco-v2"])


def test_what_follows_from_a_probe_s_lines():
    """Of the first line, in which everything starts, only the count matters: what it took beyond counts once."""
    lines = [{"time": t, "data_time": d} for t, d in ((9.0, 8.0), (1.0, 0.2), (1.4, 0.4))]
    facts = estimate.from_lines(lines, batch=8, measured=4, elapsed=20.0, fixed=100, peak=130)
    assert facts == pytest.approx(
        {
            "batch": 8,
            "measured": 4,
            "step": 2 * 0.9,
            "sample": 0.3 / 4,
            "once": 20 - 3 * 1.2,
            "memory": 100,
            "host": pytest.approx(progress.peak_memory(), rel=0.5),
            "batch_memory": 2 * 30,
        }
    )
    assert estimate.few_iterations(4, 8) < estimate.few_iterations(8, 8)


def test_workers_share_the_cores_of_a_cpu_and_hide_behind_a_gpu():
    assert estimate.seconds_a_step(PROBE, CPU) == 8 + 2.56 / 2
    assert estimate.seconds_a_step(PROBE._replace(workers=0), CPU) == 8 + 2.56
    assert estimate.seconds_a_step(PROBE, GPU) == 8
    assert estimate.seconds_a_step(PROBE._replace(workers=0), GPU) == 8 + 2.56
    assert estimate.seconds_a_step(PROBE._replace(step=0.1), GPU) == pytest.approx(0.32), "the loader is slower"


def test_processes_divide_the_work_but_not_the_cores():
    eight = GPU._replace(processes=8)
    assert estimate.seconds_a_step(PROBE, eight) == 1
    assert estimate.seconds_a_step(PROBE._replace(step=0.1), eight) == pytest.approx(0.16), (
        "of 64 workers 16 run at a time"
    )
    assert estimate.seconds(PROBE, GPU) == 30 + 400 + 8000
    assert estimate.seconds(PROBE, eight) == 30 + 50 + 1000
    assert estimate.memory(PROBE, GPU) == 9 * 2**30 and estimate.memory(PROBE, eight) == 2 * 2**30


def test_the_batch_of_a_probe():
    assert estimate.small_batch(256, 224**2, group=32) == 32
    assert estimate.small_batch(256, 224**2, group=64) == 64, "one group at least"
    assert estimate.small_batch(32, 80**2, group=16) == 32, "all that the recipe has"
    assert estimate.small_batch(16, 1333 * 800) == 1


def test_the_table(capsys):
    measurements = {
        Run("pretrain", "in1k-moco", 1): PROBE._replace(measured=32),
        Run("transfer", "voc", 5): PROBE._replace(iterations=0, workers=0, disk=2**30),
    }
    assert estimate.table(measurements, GPU).splitlines() == [
        "id         runs  iterations  s/step     time  GPU-hours  memory    disk",
        "in1k-moco     1       1,000       8    2.3 h        2.3  9.0 GB    3 MB",
        "voc           5           0       -  7.2 min        0.6  9.0 GB  1.0 GB",
        "total         6                        2.9 h        2.9  9.0 GB  5.0 GB",
        "",
        "Measured on 1 x H100: a few iterations of each, in one process. Memory is a process's.",
        "Time, memory and disk are of one run, GPU-hours of all of a row.",
        "Measured with a part of the batch, and scaled: in1k-moco (32 of 256 images).",
    ]
    text = estimate.table(measurements, CPU._replace(processes=8))
    assert "8 GPUs: time divided by 8, without communication, untested. No GPU was at hand" in text
    assert "CPU-hours" in text and "No GPU is at hand: these are times and hours of this CPU" in text


def cells(text: str, row: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(row))


def test_what_it_costs_and_draws():
    """A kilowatt for the 8,430 s of each of two runs, at 3 an hour; of the other row nothing is known."""
    drawn = {Run("pretrain", "a", 2): PROBE._replace(watts=1000.0), Run("transfer", "b", 1): PROBE}
    text = estimate.table(drawn, GPU, price=3.0)
    assert cells(text, "id")[-2:] == ["kWh", "cost"]
    assert cells(text, "a")[-2:] == [f"{2 * 8430 / 3600:.1f}", f"{3 * 2 * 8430 / 3600:.2f}"]
    assert float(cells(text, "total")[-1]) == pytest.approx(3 * 3 * 8430 / 3600, abs=0.01)
    assert "kWh" not in estimate.table({Run("transfer", "b", 1): PROBE}, GPU)


def test_a_run_takes_the_gpus_into_which_its_batch_divides():
    grouped = PROBE._replace(group=32)
    widths = [estimate.width(grouped, GPU._replace(processes=n)) for n in (1, 3, 8, 16)]
    assert widths == [1, 2, 8, 8]
    assert estimate.width(PROBE._replace(batch=16), GPU._replace(processes=6)) == 4
    twelve = GPU._replace(processes=12)
    assert estimate.device_hours(grouped, twelve) == 8 * estimate.seconds(grouped, GPU._replace(processes=8)) / 3600
    text = estimate.table({Run("pretrain", "a", 1): grouped}, twelve)
    assert "On fewer GPUs, into which the batch divides: a (8)." in text


def test_without_a_gpu_published_times_stand_beside():
    """53 h are 200 x 5,004 steps of MoCo's, and 500 epochs of IN-100 are 247,000."""
    moco = Run("pretrain", "in100-moco-v2", 1)
    text = estimate.table({moco: PROBE._replace(iterations=247_000), Run("transfer", "b", 1): PROBE}, CPU)
    (line,) = [line for line in text.splitlines() if "MoCo's README" in line]
    assert line.split()[3:7] == ["13.1", "h", "on", "8"] and " 105 " in line
    assert "MoCo's README" not in estimate.table({moco: PROBE}, GPU)
    known = {*experiments.pretrain_ids(), *experiments.transfer_ids()}
    assert known.issuperset(name for anchor in anchors.ANCHORS for name in anchor.ids)


def test_a_gpu_is_asked_for_its_power_while_it_works(monkeypatch):
    readings = itertools.chain([50_000, 90_000], itertools.repeat(400_000))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "power_draw", lambda: next(readings))
    monkeypatch.setattr(estimate, "POWER_EVERY", 0.001)
    assert estimate._silently(lambda run_id: time.sleep(0.3) or PROBE, "a", {}).watts == pytest.approx(400.0)
    monkeypatch.delattr(torch.cuda, "power_draw")
    assert estimate._silently(lambda run_id: time.sleep(0.02) or PROBE, "a", {}).watts is None


def test_gpus_that_were_named_get_a_schedule(monkeypatch):
    monkeypatch.setattr(estimate, "measured", lambda run, measure, **options: PROBE)
    asked = ["mini"], {"pretrain": None, "transfer": None}, 2
    assert "Schedule" not in estimate.report(*asked)
    text = estimate.report(*asked, gpus=8)
    assert "Schedule of one node: 8 GPUs, each run on all of them, as recipes and protocols were made for 8" in text
    assert text.count(" 8 GPUs ") == len(schedule.jobs(["mini"], 2))


@pytest.mark.parametrize(
    ("seconds", "said"), [(43.4, "43 s"), (150, "2.5 min"), (1000, "17 min"), (18720, "5.2 h"), (1071360, "12.4 d")]
)
def test_times_for_people(seconds, said):
    assert estimate.human_time(seconds) == said


def tell(run_id, **options):
    """A `measure` that says what it was given, and where it ran."""
    print("noise")
    if run_id == "wrong":
        raise UserError("one sentence")
    if run_id in ("full", "broken"):
        raise RuntimeError("CUDA out of memory" if run_id == "full" else "another")
    if run_id == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return run_id, options, os.getpid()


@pytest.mark.slow
def test_a_probe_runs_in_a_process_of_its_own_in_silence(capfd):
    run_id, options, process = estimate.measured(Run("pretrain", "an-id", 1), tell, data=None)
    assert (run_id, options) == ("an-id", {"data": None}) and process != os.getpid()
    out, err = capfd.readouterr()
    assert out == "" and err == "measuring an-id\n"
    with pytest.raises(UserError, match="^one sentence$"):
        estimate.measured(Run("pretrain", "wrong", 1), tell)
    for name in ("full", "killed"):
        with pytest.raises(UserError, match=f"^{name} does not fit into the memory here, or the system ended it"):
            estimate.measured(Run("pretrain", name, 1), tell)
    with pytest.raises(RuntimeError, match="another"):
        estimate.measured(Run("pretrain", "broken", 1), tell)
