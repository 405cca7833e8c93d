"""The first losses of a seed of the mini study, as a run gives them today.

`python -m tests.replay` writes them to tests/replay.json: of the first step in float32 on the study's scenes, as the
study ran, and of fifty in float64 on noise (the queue is full after sixteen). A processor rounds some grey levels of a
scene, a jitter or a blur its own way; from 1e-7 in the loss that grows to 1 % in fifty steps, in float64 too. So those
fifty see noise of whole grey levels, which is cropped, scaled and flipped in integers. Weights are drawn otherwise in
float64, so that losses are others.

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
from tests.pretrain.helpers import noise_images

FILE = Path(__file__).with_suffix(".json")
RUN = {"pretrain_id": "mini-resim-c4", "seed": 1}
OPTIONS = {  # the learning rate follows the recipe's epochs all the same
    "float32": {"log_interval": 1, "max_iters": 1},
    "float64": {"log_interval": 1, "max_iters": 50, "views.photometric": []},
}
PROGRAM = """
import sys
from pathlib import Path
from tests import replay
images, folder, kind = sys.argv[1:]
replay.run(Path(images), Path(folder), kind)
"""


def data(folder: Path, kind: str) -> Path:
    """What is looked at in `float32`, the study's scenes for pre-training, or in `float64`, as many images of noise."""
    if kind == "float64":
        return noise_images(folder / "noise", count=4000)
    return scenes.write(folder / "mini", train_images=1, test_images=1) / "imagefolder"


def losses(scratch: Path, kind: str) -> dict[str, list[float]]:
    """`{name: loss of each step}` of the first steps in `float32` or `float64`: the same recipe, stopped early.

    In a process of its own: what is float32 by default is so everywhere in one.
    """
    program = [sys.executable, "-c", PROGRAM, data(scratch, kind), scratch / kind, kind]
    subprocess.run(program, cwd=Path(__file__).parents[1], check=True)
    (log,) = (scratch / kind).rglob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in lines[0] if name.startswith("loss")}


def run(images: Path, folder: Path, kind: str) -> None:
    """The run itself."""
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, kind))
    train.run(**RUN, data=images, work_dir=folder, cfg_options=OPTIONS[kind])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = RUN | {kind: losses(Path(scratch), kind) for kind in OPTIONS}
        FILE.write_text(json.dumps(found, indent=1) + "\n")
