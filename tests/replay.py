"""The first losses of a seed of the mini study, as a run gives them today.

`python -m tests.replay` writes them to tests/replay.json. The first edition's own run logged a mean of 12.4113, of it
5.9827 the instances' and 6.4286 the regions'. Since the region loss is computed in chunks it was 12.4014, 5.9845 and
6.4169: the first step differed by 1e-6, and what rounding moves grows from step to step. With the second edition's blur
it is 12.3958, 5.9844 and 6.4114: the first step differs by 3e-4, and fifty by no more than what rounding grows to.
"""

import json
import tempfile
from pathlib import Path

from pretrain import train
from resim_bench.data import scenes

FILE = Path(__file__).with_suffix(".json")
RUN = {"pretrain_id": "mini-resim-c4", "seed": 1}
STEPS = 50


def losses(folder: Path) -> dict[str, list[float]]:
    """`{name: loss of each step}` of the first steps: the same recipe, stopped early."""
    data = scenes.write(folder / "mini", train_images=1, test_images=1) / "imagefolder"
    options = {"max_iters": STEPS, "log_interval": 1}  # the learning rate follows the recipe's epochs all the same
    train.run(**RUN, data=data, work_dir=folder, cfg_options=options)
    (log,) = folder.rglob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in lines[0] if name.startswith("loss")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        FILE.write_text(json.dumps(RUN | losses(Path(scratch)), indent=1) + "\n")
