"""torchrun by the suite: two processes train as one does, and what they say is the last that is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resim_bench.harness import progress
from tests.pretrain.helpers import TINY_RUN, noise_images

ROOT = Path(__file__).resolve().parents[2]


def torchrun(folder, *command):
    """Two processes of a command that is on the disk."""
    start = [sys.executable, "-m", "resim_bench.torchrun", "--standalone", "--nproc-per-node=2", "--no-python"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *command], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("exit 0", 0, ""),
        ("exit 3", 3, ""),
        ("kill -9 $$$$", 137, "resim-bench: the system ended process 0 (SIGKILL): see its memory, and start again\n"),
    ],
)
def test_the_end_is_that_of_the_first_process_that_failed(tmp_path, command, code, said):
    # torchrun makes one of two dollars
    done = torchrun(tmp_path, "sh", "-c", f"[ $RANK = 1 ] && sleep 30; {command}" if code else command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.fixture
def program(tmp_path):
    """The command line as a file."""
    file = tmp_path / "program"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -m resim_bench.program "$@"\n')
    file.chmod(0o755)
    return str(file)


def test_bad_input_is_one_sentence_for_all(tmp_path, program):
    done = torchrun(tmp_path, program, "pretrain", "in100-moco-v2", "--launcher", "pytorch")
    assert done.returncode == 2
    assert (
        done.stderr.startswith("resim-bench: there is no image folder data/imagenet") and done.stderr.count("\n") == 1
    )


def test_two_processes_train_as_one(tmp_path, program):
    options = [f"{name}={value}" for name, value in TINY_RUN.items()]
    words = ["pretrain", "mini-resim-c4", "--data", str(noise_images(tmp_path / "images")), "--cfg-options", *options]
    assert subprocess.run([program, *words, "--work-dir", "one"], cwd=tmp_path, capture_output=True).returncode == 0
    assert torchrun(tmp_path, program, *words, "--work-dir", "two", "--launcher", "pytorch").returncode == 0
    one, two = (progress.read(tmp_path / place / "pretrain/mini-resim-c4/seed-0") for place in ("one", "two"))
    assert len(one) == len(two) == 4
    for name in ("loss_instance", "loss_c4", "top1_instance", "top1_c4", "windows_c4"):
        assert two[0][name] == pytest.approx(one[0][name], rel=1e-5), name
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=0.03)
