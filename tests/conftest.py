"""What every test runs under, and a record to test with."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

# Two cores, small tensors: threads that wait for each other cost more than they give.
torch.set_num_threads(1)

# What is remembered about folders of data: not in the cache of whoever runs the tests, and not across runs.
_CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _CACHE.name

DATA = "0" * 64


@pytest.fixture
def tracked():
    """The names of the files in the repository; unpacked from an archive, the suite has none, and CI is a clone."""
    root = Path(__file__).resolve().parents[1]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no clone: git tracks no file here")
    return listed.stdout.splitlines()


@pytest.fixture
def make_record():
    """Builds a valid record; every argument after the ids is optional, `metrics` stands for the three of VOC."""

    def build(pretrain, transfer, ap=50.0, ap50=75.0, ap75=55.0, seeds=(0, 0), deviations=None, metrics=None):
        def side(name, seed, differing):
            return {
                "id": name,
                "seed": seed,
                "protocol": {"batch": 16},
                "overrides": {},
                "deviations": differing,
                "data": DATA,
            }

        return {
            "schema": 1,
            "pretrain": side(pretrain, seeds[0], deviations or {}) | {"epochs": 500, "backbone_sha256": DATA},
            "transfer": side(transfer, seeds[1], {}),
            "metrics": metrics or {"AP": ap, "AP50": ap50, "AP75": ap75},
            "versions": {"torch": "2.11.0"},
            "commit": "abc",
            "device": "2 x cpu",
            "seconds": 12.5,
            "finished": "2025-01-02T03:04:05+00:00",
        }

    return build
