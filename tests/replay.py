"""The first losses of a seed of the mini study, as a run gives them today.

`python -m tests.replay` writes them to tests/replay.json. The first edition's own run logged a mean of 12.4113, of it
5.9827 the instances' and 6.4286 the regions'. Since the region loss is computed in chunks it was 12.4014, 5.9845 and
6.4169: the first step differed by 1e-6, and what rounding moves grows from step to step. With the second edition's blur
it is 12.3958, 5.9844 and 6.4114: the first step differs by 3e-4, and fifty by no more than what rounding grows to. In
float64 nothing has grown in ten steps; weights are drawn otherwise there, so that losses are others.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pretrain import train
from resim_bench.data import scenes

FILE = Path(__file__).with_suffix(".json")
RUN = {"pretrain_id": "mini-resim-c4", "seed": 1}
STEPS = 50
FLOAT64, STEPS_IN_FLOAT64 = "float64", 10
PROGRAM = """
import json, sys, torch
from pathlib import Path
torch.set_default_dtype(torch.float64)
from tests import replay
found = replay.losses(Path(sys.argv[1]), replay.STEPS_IN_FLOAT64)
Path(sys.argv[1], "losses.json").write_text(json.dumps(found))
"""


def losses(folder: Path, steps: int = STEPS) -> dict[str, list[float]]:
    """`{name: loss of each step}` of the first steps: the same recipe, stopped early."""
    data = scenes.write(folder / "mini", train_images=1, test_images=1) / "imagefolder"
    options = {"max_iters": steps, "log_interval": 1}  # the learning rate follows the recipe's epochs all the same
    train.run(**RUN, data=data, work_dir=folder, cfg_options=options)
    (log,) = folder.rglob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in lines[0] if name.startswith("loss")}


def losses_in_float64(folder: Path) -> dict[str, list[float]]:
    """The same in float64, in a process of its own: what is float32 by default is so everywhere in one."""
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, folder], cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True
    )
    return json.loads((folder / "losses.json").read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as other:
        found = RUN | losses(Path(scratch)) | {FLOAT64: losses_in_float64(Path(other))}
        FILE.write_text(json.dumps(found, indent=1) + "\n")
