"""One seed of a table: who runs when, with what, and what a failure says. The trainings are a script that tells."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from resim_bench import cli
from resim_bench.errors import UserError
from resim_bench.experiments import Experiment, Trial
from resim_bench.harness import parallel

PAIRS = [Experiment(p, t) for t in ("mini-voc-full", "mini-voc-frozen") for p in ("mini-random", "mini-moco-v2")]


def with_seed(seed):
    return [Trial(pair, seed) for pair in PAIRS]


SCRIPT = """
    import json, os, pathlib, sys, time
    folder, verb, id = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    name = "-".join([verb, id, *sys.argv[5:6]]) if verb == "transfer" else f"{verb}-{id}"
    name = name.replace("/", "_")
    (folder / "began").open("a").write(name + chr(10))
    print(f"working on {name}")
    if (folder / "fails").exists() and (folder / "fails").read_text() == name:
        sys.exit("resim-bench: the disk is full: make room")
    if (folder / "dies").exists():
        os.kill(os.getpid(), 9)
    time.sleep(60 if (folder / "slow").exists() else 0.2)
    facts = {"arguments": sys.argv[2:], "threads": os.environ["OMP_NUM_THREADS"]}
    (folder / "began").open("a").write(name + " ended" + chr(10))
    (folder / f"{name}.json").write_text(json.dumps(facts))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    monkeypatch.setattr(parallel, "COMMAND", (sys.executable, str(script), str(tmp_path)))
    return tmp_path


def test_every_training_runs_once_and_after_what_it_needs(folder, capsys):
    parallel.run(with_seed(3), folder / "work")
    events = (folder / "began").read_text().splitlines()
    assert sorted(name for name in events if "ended" not in name) == sorted(
        ["pretrain-mini-random", "pretrain-mini-moco-v2", *(f"transfer-{p.transfer_id}-{p.pretrain_id}" for p in PAIRS)]
    )
    for pair in PAIRS:
        began = events.index(f"transfer-{pair.transfer_id}-{pair.pretrain_id}")
        assert events.index(f"pretrain-{pair.pretrain_id} ended") < began
    out = capsys.readouterr().out.splitlines()
    assert f"{'3 mini-moco-v2':42}working on pretrain-mini-moco-v2" in out
    assert f"{'3 mini-moco-v2, mini-voc-full':42}working on transfer-mini-voc-full-mini-moco-v2" in out


def test_each_has_the_seed_one_thread_and_continues(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    parallel.run(with_seed(3), folder / "work")
    facts = json.loads((folder / "transfer-mini-voc-full-mini-random.json").read_text())
    assert facts["threads"] == "1"
    wanted = "transfer mini-voc-full --backbone mini-random --pretrain-seed 3 --seed 3 --work-dir"
    assert facts["arguments"] == [*wanted.split(), str(folder / "work"), "--resume"]


def test_other_data_are_the_transfers_and_have_a_place_of_their_own(folder):
    """The backbones are those of the work directory, and what the protocol's data gave there stays."""
    parallel.run(with_seed(3), folder / "work", Path("blood"), folder / "tests")
    backbone = str(folder / "work/pretrain/mini-random/seed-3/backbone.safetensors")
    of_recipe = ["--seed", "3", "--work-dir", str(folder / "work"), "--resume"]
    of_transfer = ["--pretrain-seed", "3", "--seed", "3", "--work-dir", str(folder / "tests"), "--resume"]
    for name, wanted in {
        "pretrain-mini-random": ["pretrain", "mini-random", *of_recipe],
        f"transfer-mini-voc-full-{backbone.replace('/', '_')}": [
            *("transfer", "mini-voc-full", "--backbone", backbone),
            *(*of_transfer, "--data", "blood"),
        ],
    }.items():
        assert json.loads((folder / f"{name}.json").read_text())["arguments"] == wanted


def test_probes_and_readings_are_run_by_their_commands(folder):
    pairs = [Experiment("mini-random", name) for name in ("probe-mini", "readings-mini")]
    parallel.run([Trial(pair, 3) for pair in pairs], folder / "work")
    of = ["--pretrain-seed", "3", "--seed", "3", "--work-dir", str(folder / "work"), "--resume"]
    for verb, wanted in {
        "probe": ["probe", "mini-random", "--on", "probe-mini", *of],
        "judge": ["judge", "mini-random", "--on", "readings-mini", "--quiet", *of[:2], *of[4:6]],
    }.items():
        assert json.loads((folder / f"{verb}-mini-random.json").read_text())["arguments"] == wanted
        assert cli.build_parser().parse_args(wanted).work_dir == folder / "work", "the command line takes it"


def test_what_fails_says_why_and_stops_the_others(folder, monkeypatch):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0, 1})
    (folder / "fails").write_text("pretrain-mini-moco-v2")
    (folder / "slow").touch()
    with pytest.raises(UserError, match="^the disk is full: make room$"):
        parallel.run(with_seed(0), folder)
    assert "ended" not in (folder / "began").read_text()


def test_what_the_system_ends_is_said(folder):
    (folder / "dies").touch()
    with pytest.raises(UserError, match=r"^the system ended 0 mini-(random|moco-v2) \(SIGKILL\): see its memory, and"):
        parallel.run(with_seed(0), folder)


def test_nothing_of_the_current_folder_is_imported(tmp_path):
    (tmp_path / "random.py").write_text("raise RuntimeError")
    subprocess.run([*parallel.COMMAND, "--version"], cwd=tmp_path, check=True, capture_output=True)


def test_a_cluster_s_stop_ends_what_runs(folder):
    (folder / "slow").touch()
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        parallel.run(with_seed(0), folder)
    assert "ended" not in (folder / "began").read_text() and time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_starts_after_the_stop_ends_at_once(folder):
    """The worker whose training failed takes the next from the queue before the others are told."""
    (folder / "slow").touch()
    trainings = parallel._Trainings()
    trainings.stop()
    started = time.monotonic()
    with pytest.raises(UserError):
        trainings.run("late", ["pretrain", "mini-random"])
    assert time.monotonic() - started < 30
