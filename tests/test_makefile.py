"""What the verbs start: one process, or one per GPU by torchrun."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALONE = ".venv/bin/resim-bench"
TORCHRUN = ".venv/bin/python -m resim_bench.torchrun"
EIGHT = f"{TORCHRUN} --standalone --nproc-per-node=8 --no-python {ALONE}"
NODES = f"{TORCHRUN} --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=a:1 --nproc-per-node=8 --no-python {ALONE}"


def started(tmp_path, *words, gpus_here=0):
    """The last line of `make -n`, where `nvidia-smi` finds so many GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "echo a GPU\n" * gpus_here)
    tool.chmod(0o755)
    places = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    places = {
        name: value
        for name, value in places.items()
        if name not in ("CUDA_VISIBLE_DEVICES", "GPUS", "NODES", "MASTER", "ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    said = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, env=places, check=True)
    return " ".join(said.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "gpus_here", "expected"),
    [
        (["pretrain-in100"], 0, f"{ALONE} pretrain 'in100*' --resume"),
        (["pretrain-in100"], 1, f"{ALONE} pretrain 'in100*' --resume"),
        (["pretrain-in100"], 8, f"{EIGHT} pretrain 'in100*' --resume --launcher pytorch"),
        (["pretrain-in100", "GPUS=8"], 0, f"{EIGHT} pretrain 'in100*' --resume --launcher pytorch"),
        (
            ["pretrain-in100", "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7"],
            9,
            f"{EIGHT} pretrain 'in100*' --resume --launcher pytorch",
        ),
        (["pretrain-in100", "GPUS=1"], 8, f"{ALONE} pretrain 'in100*' --resume"),
        (["transfer-voc-frozen", "GPUS=8"], 0, f"{EIGHT} transfer voc-frozen --resume --launcher pytorch"),
        (
            ["transfer-voc-full", "GPUS=8", "NODES=2", "MASTER=a:1", "ARGS=--seed 3"],
            0,
            f"{NODES} transfer voc-full --resume --launcher pytorch --seed 3",
        ),
    ],
)
def test_processes(tmp_path, words, gpus_here, expected):
    assert started(tmp_path, *words, gpus_here=gpus_here) == expected


def test_several_nodes_need_a_place_to_meet():
    said = subprocess.run(["make", "-n", "pretrain-in100", "NODES=2"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2 and "NODES=2 needs MASTER=HOST:PORT of one of them" in said.stderr
