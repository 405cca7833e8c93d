"""What a pre-training survives, refuses and says: cut off, poisoned, damaged, continued under other circumstances."""

import errno
import json
import os
import shutil

import pytest
import torch

from pretrain import train
from pretrain.methods.moco import MoCo
from resim_bench import backbone, cli, files
from resim_bench.data import scenes
from resim_bench.errors import UserError
from resim_bench.harness import runs, trace
from tests.pretrain.helpers import TINY_RUN, interrupt_at, noise_images, same_weights


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return noise_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def start(images, tmp_path):
    def run(options=None, resume=False, work="work", **keywords):
        arguments = {"data": images, "work_dir": tmp_path / work, "resume": resume} | keywords
        return train.run("mini-moco-v2", cfg_options=TINY_RUN | (options or {}), **arguments)

    return run


@pytest.fixture
def cut_off(start, tmp_path, monkeypatch):
    """The directory of a run that was interrupted in its fourth step, with a checkpoint of each step before."""

    def run(step=4, **keywords):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.raises(KeyboardInterrupt):
                start(**keywords)
        return tmp_path / "work" / "pretrain" / "mini-moco-v2" / "seed-0"

    return run


class Poison:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_poisoned_checkpoint_is_refused_and_nothing_in_it_runs(start, cut_off, tmp_path):
    run_dir = cut_off()
    torch.save({"meta": Poison(tmp_path / "it ran")}, run_dir / runs.LAST)
    with pytest.raises(UserError, match=r"last.pth is damaged, or no checkpoint .*delete it; .* continues from before"):
        start(resume=True)
    assert not (tmp_path / "it ran").exists() and (run_dir / runs.BEFORE).exists()


def test_a_config_in_a_checkpoint_is_not_executed(start, cut_off, tmp_path):
    """mmengine's Runner runs one as Python when it resumes."""
    run_dir = cut_off()
    checkpoint = torch.load(run_dir / runs.LAST, weights_only=False)
    checkpoint["meta"]["config"] = f"import os\nos.mkdir({str(tmp_path / 'it ran')!r})\n"
    torch.save(checkpoint, run_dir / runs.LAST)
    assert same_weights(start(resume=True), start(work="whole"))
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short", None])
def test_a_damaged_checkpoint_is_deleted_and_the_one_before_goes_on(start, cut_off, content):
    run_dir = cut_off()
    whole = (run_dir / runs.LAST).read_bytes()
    (run_dir / runs.LAST).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match="last.pth is damaged"):
        start(resume=True)
    (run_dir / runs.LAST).unlink()
    assert same_weights(start(resume=True), start(work="whole"))


def test_a_checkpoint_of_another_run_is_refused(start, cut_off, tmp_path):
    run_dir = cut_off()
    other = start({"optimizer.lr": 0.01}, work="other").parent / runs.LAST
    shutil.copy(other, run_dir / runs.LAST)
    with pytest.raises(UserError, match="last.pth is the checkpoint of another run: delete it"):
        start(resume=True)


def test_a_checkpoint_holds_nothing_that_takes_code_to_read(cut_off):
    checkpoint = torch.load(cut_off() / runs.LAST, weights_only=True)
    assert checkpoint["meta"]["circumstances"]["threads"] == torch.get_num_threads()


def test_what_a_continued_run_changes_is_said_and_kept(start, cut_off, capsys):
    cut_off()
    capsys.readouterr()
    file = start({"micro_batch": 4}, resume=True)
    assert "micro_batch was None and is now 4: this may change the rounding, and is recorded" in capsys.readouterr().out
    changes = backbone.load(file)[1]["changes"]
    assert changes == [{"iteration": 3, "setting": "micro_batch", "was": None, "is": 4}]


def test_a_finished_backbone_is_never_made_again(start, capsys):
    file = start()
    content = file.read_bytes()
    for name in (runs.CLAIM, runs.LAST, runs.BEFORE):
        (file.parent / name).unlink(missing_ok=True)
    capsys.readouterr()
    assert start(resume=True) == file and "done before" in capsys.readouterr().out
    with pytest.raises(UserError, match="is the result of another configuration .protocol.optimizer.lr was 0.06"):
        start({"optimizer.lr": 0.01})
    assert start(data=file.parents[5] / "away") == file, "its data are away, and nothing is left to do"
    assert file.read_bytes() == content


def test_a_start_that_cannot_be_built_leaves_nothing(start, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(MoCo, "__init__", broken)
    with pytest.raises(UserError, match="do not make anything that can be trained .RuntimeError"):
        start()
    assert not (tmp_path / "work").exists()


def test_weights_that_are_not_finite_are_refused(start, tmp_path):
    """Also those of the last step, whose loss was still finite."""
    with pytest.raises(UserError, match="weights are not finite at iteration 1: lower the learning rate"):
        start({"max_iters": 1, "optimizer.lr": 1e38, "optimizer.weight_decay": 1e3})
    assert not list((tmp_path / "work").rglob("*")), "and nothing stands in the next start's way"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_one_sentence_and_the_run_goes_on(images, tmp_path, monkeypatch, capsys, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    options = [f"{key}={value}" for key, value in TINY_RUN.items()]
    command = ["pretrain", "mini-moco-v2", "--data", images, "--work-dir", tmp_path / "work", "--cfg-options", *options]
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", full)
        assert cli.main([str(word) for word in command]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and os.strerror(code).lower() in said
    assert not list((tmp_path / "work").rglob("*")), "nor half a checkpoint, which takes room"
    assert cli.main([str(word) for word in command]) == 0


def test_the_monitor_reads_the_same_after_a_cut(start, cut_off, tmp_path):
    data = scenes.write(tmp_path / "mini", pretrain_images=8, train_images=8, test_images=1) / "VOCdevkit"
    options = {"monitor.every": 1, "monitor.data": str(data), "monitor.images": 8}
    whole = trace.monitored(start(options, work="whole").parent)
    run_dir = cut_off(options=options)
    with open(run_dir / trace.MONITOR, "a") as file:
        file.write('{"iter": 4, "cel')  # what a kill leaves of a line
    start(options, resume=True)
    parts = trace.lines(run_dir / trace.MONITOR)

    def without_time(readings):
        return [{key: value for key, value in reading.items() if key != "seconds"} for reading in readings]

    assert without_time(parts) == without_time(whole)
    assert [json.loads(line)["iter"] for line in (run_dir / trace.MONITOR).read_text().splitlines()] == [0, 2, 4]


def test_a_disk_that_fills_up_later_keeps_the_checkpoint_and_no_half_of_one(start, cut_off, monkeypatch):
    run_dir = cut_off()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", full)
        with pytest.raises(OSError, match="No space left"):
            start(resume=True)
    assert (run_dir / runs.LAST).exists() and not (run_dir / runs.HALF).exists()
    assert same_weights(start(resume=True), start(work="whole"))
