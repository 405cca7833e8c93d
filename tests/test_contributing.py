"""CONTRIBUTING.md, followed in a copy: its touch points are all that there are."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHOD = '''"""A method of the test."""

from typing import Literal

from mmengine.registry import MODELS

from pretrain.methods import moco


class Settings(moco.Settings):
    """What `Mirrored` takes."""

    type: Literal["Mirrored"]


@MODELS.register_module()
class Mirrored(moco.MoCo):
    """MoCo under another name."""

    Settings = Settings
'''
PROTOCOL = '''"""voc-full with fewer proposals. No row stands on it.

Paper: none.
Run: resim-bench transfer voc-few --backbone random
Expect: less.
"""

_base_ = "./voc-full.py"

model = dict(test_cfg=dict(rpn=dict(max_per_img=300)))
'''
TABLE = """
order = 99
title = "A table of another paper"
source = "the test"
data = "voc"
metrics = ["AP", "AP50", "AP75"]
gain_over = "random init."

[[rows]]
label = "Mirrored"
pretrain = "photos-moco-v2"
transfer = "photos-cards-full"
reported = { AP = 34.0, AP50 = 56.0, AP75 = 37.0 }
"""
PAPER = """
title = "Mirrors"
method = "Mirrored"
baseline = "random init."

[noise.voc]
std = { AP = 0.2, AP50 = 0.2, AP75 = 0.4 }
bound = { AP = 1.0, AP50 = 1.0, AP75 = 2.0 }
"""


@pytest.fixture
def copied(tracked, tmp_path):
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith(("tests/golden", "docs")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    commit = "git init -q && git add -A && git -c user.name=a -c user.email=a@b commit -qm x"
    subprocess.run(commit, cwd=tmp_path, shell=True, check=True)
    return tmp_path


def run(folder, *command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_method_a_protocol_and_a_table(copied):
    (copied / "pretrain/methods/mirrored.py").write_text(METHOD)
    methods = copied / "pretrain/methods/__init__.py"
    methods.write_text(methods.read_text().replace("import densecl, moco,", "import densecl, mirrored, moco,"))
    (copied / "pretrain/configs/_base_/mirrored.py").write_text(
        '"""Mirrored."""\n\n_base_ = "small_moco_v2.py"\nmodel = dict(type="Mirrored")\n'
    )
    (copied / "pretrain/configs/mini-mirrored.py").write_text(
        '"""Mirrored on scenes. No row stands on it."""\n\n_base_ = ["_base_/mirrored.py", "_base_/scenes.py"]\n'
    )
    (copied / "transfer/configs/voc-few.py").write_text(PROTOCOL)
    said = run(copied, "tests.pin")
    assert said == "mini-mirrored: new\nvoc-few: new\n", "no other protocol changed"
    run(copied, "pytest", "-q", "tests/test_pinned_protocols.py", "tests/resim_bench/test_experiments.py")

    paper = copied / "tables/papers/mirrors"
    paper.mkdir()
    (paper / "paper.toml").write_text(PAPER)
    (paper / "mirrors-voc.toml").write_text(TABLE)
    shown = run(copied, "resim_bench.cli", "tables", "mirrors-voc")
    assert "A table of another paper" in shown and "34.0" in shown and "ours" in shown
