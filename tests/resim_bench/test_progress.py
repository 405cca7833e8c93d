"""Progress lines: means over the interval, no reading in between, one warning when the loader starves the device."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset

from resim_bench.harness import checkpoint, progress, trace
from resim_bench.harness.runner import build_runner
from tests.host_reads import HostReads

BATCH = 2


@DATASETS.register_module()
class Numbers(Dataset):
    """The sample of a draw is its number; some are slow to come."""

    metainfo: dict = {}

    def __init__(self, seed, slow=()):
        self.slow = slow

    def __len__(self):
        return 10

    def __getitem__(self, item):
        if item[0] // BATCH in self.slow:
            time.sleep(0.02)
        return {"x": torch.tensor([float(item[0])])}


@MODELS.register_module()
class Identity(BaseModel):
    """Its loss does not depend on its weight; an accuracy of another type, and a step that takes some time."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, mode):
        time.sleep(0.01)
        x = torch.stack(x)
        return {"loss_x": (x + 0 * self.weight).mean(), "top1": (x > 3).sum().bfloat16()}


@pytest.fixture
def build(tmp_path):
    def runner(interval=3, iterations=7, slow=(), run_dir="run", workers=0):
        dataset = dict(type="Numbers", seed=0, slow=slow)
        sampler = dict(type="DrawSampler", batch_size=BATCH)
        cfg = Config(
            dict(
                model=dict(type="Identity"),
                train_dataloader=dict(dataset=dataset, batch_size=BATCH, sampler=sampler, num_workers=workers),
                train_cfg=dict(by_epoch=False, max_iters=iterations),
                optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.5)),
                param_scheduler=dict(type="ConstantLR", factor=1.0, by_epoch=False),
                default_hooks=dict(logger=dict(type="LoggerHook", interval=interval)),
            )
        )
        return build_runner(cfg, seed=0).move_in(tmp_path / run_dir)

    return runner


def value(line, name):
    return float(re.search(rf"  {re.escape(name)}: ([\d.e+-]+)", line).group(1))


def test_lines_show_means_over_their_interval(build, tmp_path, capsys):
    build().train()
    lines = capsys.readouterr().out.splitlines()
    # Iteration i has draws 2i and 2i + 1: its loss is 2i + 0.5, and it counts the draws above 3.
    expected = {3: (2.5, 2 / 3), 6: (8.5, 2.0), 7: (12.5, 2.0)}
    assert [line[:19] for line in lines] == [f"  Iter(train) [{done}/7]" for done in expected]
    for line, (loss, top1) in zip(lines, expected.values(), strict=True):
        assert value(line, "loss_x") == value(line, "loss") == loss
        assert value(line, "top1") == pytest.approx(top1, abs=1e-4)
        assert value(line, "lr") == 0.5
        assert value(line, "time") >= 0.01 > value(line, "data_time")
        assert value(line, "images/s") == pytest.approx(BATCH / value(line, "time"), rel=0.05)
    names = re.findall(r"(\S+): ", lines[0])
    assert names == ["lr", "eta", "time", "data_time", "images/s", "memory", "loss", "loss_x", "top1"]
    assert [entry["iter"] for entry in trace.progress(tmp_path / "run")] == list(expected)
    assert trace.progress(tmp_path / "run")[1]["top1"] == 2


def test_the_seconds_of_a_run_are_its_median_step_s(tmp_path):
    times = {50: 0.5, 100: 9.0, 150: 0.4, 160: 0.6}  # a busy moment between
    for number, iters in enumerate(([50, 100], [150, 160])):  # started twice
        file = tmp_path / str(number) / "vis_data" / "scalars.json"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps({"iter": i, "time": times[i]}) + "\n" for i in iters))
    assert trace.seconds(tmp_path) == pytest.approx(0.55 * 160)
    assert trace.seconds(tmp_path / "nowhere") == 0
    with open(file, "ab") as lines:  # what a full disk, an editor or another program leaves
        lines.write(b'\0\0\n3\n{"iter": "x"}\n\xff\n{"iter": 160}\n{"iter": 160, "time": 0.6}\n')
    assert trace.seconds(tmp_path) == pytest.approx(0.55 * 160)


def test_a_claim_that_is_no_run_s_is_none(tmp_path):
    on = "on/blood/transfer/mini-moco-v2/mini-voc-full/pretrain-0_transfer-0"
    for folder in ("", "pretrain", "pretrain/mini-moco-v2/seed-0", on):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / trace.CLAIM).write_text("{}")
    record = tmp_path / "on/blood/records" / Path(on).relative_to("on/blood/transfer").with_suffix(".json")
    record.parent.mkdir(parents=True)
    record.touch()
    assert [(run.room, run.name, run.state) for run in trace.found(tmp_path)] == [
        ("pretrain", "mini-moco-v2, seed-0", trace.STOPPED),
        ("transfer", "mini-moco-v2, mini-voc-full, pretrain-0_transfer-0", trace.FINISHED),
    ]
    assert trace.found(tmp_path / "pretrain/mini-moco-v2") == []


def test_images_a_second_are_those_of_all_processes(build, monkeypatch, capsys):
    monkeypatch.setattr(progress, "get_world_size", lambda: 4)
    build(iterations=3).train()
    line = capsys.readouterr().out
    assert value(line, "images/s") == pytest.approx(4 * BATCH / value(line, "time"), rel=0.05)


def test_nothing_is_read_between_the_lines(build, monkeypatch):
    """On a GPU the checkpoint hook reads the loss with the line, and not in each step as on a CPU."""
    monkeypatch.setattr(checkpoint.SafeCheckpointHook, "after_train_iter", lambda *args, **kwargs: None)
    lists, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(1) or tolist(tensor))
    runner = build(interval=5, iterations=15)
    with HostReads() as reads:
        runner.train()
    assert len(reads.found) == 1, "a loader's iterator draws its seed when it starts"
    assert len(lists) == 3, "one transfer per line"


@pytest.mark.parametrize(("slow", "warned"), [((), 0), (range(3), 0), (range(5, 15), 1)])
def test_one_warning_when_the_loader_starves_the_device(build, monkeypatch, capsys, slow, warned):
    """Not of the first interval, in which workers start."""
    monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
    build(interval=3, iterations=15, slow=slow).train()
    *lines, last = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "starves" in line]
    assert len(said) == warned and len(lines) + 1 == 5 + warned
    for line in said:
        assert re.search(r"the loader starves the device: \d\d% of the time .* more than 0 workers \(`workers`", line)


def test_a_short_wait_is_not_worth_a_warning(build, capsys):
    build(interval=3, iterations=9, slow=range(9)).train()
    assert "starves" not in capsys.readouterr().out


def test_a_gpu_that_is_still_busy_is_not_starved(monkeypatch):
    class Stream:
        def __init__(self, idle):
            self.query = lambda: idle

    def batches():
        while True:
            time.sleep(0.01)
            yield

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for idle in (False, True):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda idle=idle: Stream(idle))
        timed = progress.TimedBatches(batches())
        next(timed)
        assert timed.waited >= 0.01 and timed.starved == (timed.waited if idle else 0)


def test_a_continued_run_counts_its_own_iterations(build, capsys, tmp_path):
    build(iterations=4).train()
    capsys.readouterr()
    build(iterations=10).train()
    said, first, second, last = capsys.readouterr().out.splitlines()
    assert said == "  continues after iteration 4"
    assert value(first, "loss") == 9.5, "of iterations 4 and 5"
    assert value(second, "loss") == 14.5 and value(last, "loss") == 18.5
    assert "[10/10]" in last and "[ 6/10]" in first and "eta: 0:00:00" in last
