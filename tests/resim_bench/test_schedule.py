"""What runs when on a node: order, packing, what waits for what."""

from resim_bench import experiments
from resim_bench.machine import schedule
from resim_bench.machine.schedule import Job, Slot

PRETRAIN = Job("pretrain", "a", 0)
TRANSFERS = [Job("transfer", "t", seed, "a") for seed in range(2)]


def test_a_table_is_each_row_s_recipe_and_then_its_transfers():
    found = schedule.jobs(["in100-voc"], trials=2)
    assert found[:3] == [Job("pretrain", "random", 0), *(Job("transfer", "voc-full", s, "random") for s in (0, 1))]
    assert len(found) == 4 * 3
    assert schedule.jobs(["in100-voc", "in100-voc", "in100-moco-v2"], 2) == [
        *found,
        Job("pretrain", "in100-moco-v2", 1),
    ]


def test_readings_of_a_row_are_left_out(monkeypatch):
    pairs = [experiments.Experiment("mini-random", name) for name in ("mini-voc-full", "readings-mini", "probe-mini")]
    monkeypatch.setattr(experiments, "of_table", lambda id: pairs)
    assert [job.id for job in schedule.jobs(["table:coco-1x"])] == ["mini-random", "mini-voc-full"]


def test_weights_that_others_trained_are_transferred_alone():
    found = schedule.jobs(["table:coco-1x"])
    given = [job for job in found if (job.backbone or job.id).startswith("given-")]
    assert all(job.room == "transfer" for job in given)


def test_runs_on_all_gpus_follow_each_other():
    slots = schedule.place([PRETRAIN, *TRANSFERS], 8, lambda job: 60.0, lambda job: 8)
    assert [(slot.start, slot.end, slot.gpus) for slot in slots] == [(0, 60, 8), (60, 120, 8), (120, 180, 8)]


def test_runs_on_fewer_go_side_by_side_and_none_before_its_backbone():
    other = Job("pretrain", "b", 0)
    width = {"pretrain": 2, "transfer": 1}
    slots = schedule.place([PRETRAIN, *TRANSFERS, other], 4, lambda job: 60.0, lambda job: width[job.room])
    assert [(slot.start, slot.end) for slot in slots] == [(0, 60), (60, 120), (60, 120), (60, 120)]


def test_a_transfer_of_a_backbone_that_is_there_waits_for_nothing():
    assert schedule.place(TRANSFERS, 1, lambda job: 1.0, lambda job: 1)[0] == Slot(TRANSFERS[0], 0.0, 1.0, 1)


def test_times_of_a_schedule():
    assert [schedule.clock(s) for s in (0, 3 * 3600 + 7 * 60, 2 * 86400 + 3600, 86399)] == [
        "0:00",
        "3:07",
        "2 d 01:00",
        "1 d 00:00",
    ]
