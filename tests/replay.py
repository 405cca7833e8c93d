"""The first losses of a seed of the mini study, as a run gives them today.

`python -m tests.replay` writes them to tests/replay.json: of the first step in float32, as the study ran, and of fifty
in float64, where what rounding moves has not grown to a digit by then (SSE alone: none; the queue is full after
sixteen); weights are drawn otherwise there, so that losses are others.

The first edition's own run logged a mean of 12.4113 over fifty steps. Since the region loss is computed in chunks it
was 12.4014: the first step differed by 1e-6, and what rounding moves grows from step to step. With the second edition's
blur it is 12.3958: the first step differs by 3e-4, and fifty by no more than what rounding grows to.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from pretrain import train
from resim_bench.data import scenes

FILE = Path(__file__).with_suffix(".json")
RUN = {"pretrain_id": "mini-resim-c4", "seed": 1}
STEPS = {"float32": 1, "float64": 50}
PROGRAM = """
import sys
from pathlib import Path
from tests import replay
images, folder, kind = sys.argv[1:]
replay.run(Path(images), Path(folder), kind)
"""


def data(folder: Path) -> Path:
    """The study's scenes for pre-training."""
    return scenes.write(folder / "mini", train_images=1, test_images=1) / "imagefolder"


def losses(images: Path, folder: Path, kind: str) -> dict[str, list[float]]:
    """`{name: loss of each step}` of the first steps in `float32` or `float64`: the same recipe, stopped early.

    In a process of its own: what is float32 by default is so everywhere in one.
    """
    subprocess.run([sys.executable, "-c", PROGRAM, images, folder, kind], cwd=Path(__file__).parents[1], check=True)
    (log,) = folder.rglob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in lines[0] if name.startswith("loss")}


def run(images: Path, folder: Path, kind: str) -> None:
    """The run itself."""
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, kind))
    # the learning rate follows the recipe's epochs all the same
    options = {"max_iters": STEPS[kind], "log_interval": 1}
    train.run(**RUN, data=images, work_dir=folder, cfg_options=options)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        images = data(Path(scratch))
        found = RUN | {kind: losses(images, Path(scratch, kind), kind) for kind in STEPS}
        FILE.write_text(json.dumps(found, indent=1) + "\n")
