"""torchrun by the suite: what the processes say is the last that is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_bad_input_is_one_sentence_for_all(tmp_path):
    program = [sys.executable, "-m", "resim_bench.program"]
    done = torchrun(tmp_path, *program, "pretrain", "in100-moco-v2", "--launcher", "pytorch")
    assert done.returncode == 2
    assert (
        done.stderr.startswith("resim-bench: there is no image folder data/imagenet") and done.stderr.count("\n") == 1
    )
