"""Progress where people watch it, too: TensorBoard, Weights & Biases, MLflow, by mmengine's backends.

Each writes below `<run>/logs`, from the first progress line on. What is logged changes nothing of a run.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend, MLflowVisBackend

from resim_bench.errors import UserError
from resim_bench.harness.options import first_line
from resim_bench.settings import listed

FOLDER = "logs"
PROJECT = "resim-bench"
MLFLOW_SERVER = os.environ.get("MLFLOW_TRACKING_URI")  # now: mlflow itself sets the variable, once it has written


@VISBACKENDS.register_module()
class MLflowLog(MLflowVisBackend):
    """mmengine's, without the copies of the training's logs, for which it would need the whole configuration."""

    def close(self):
        """End the run."""
        if self._env_initialized:
            self._mlflow.end_run()


class Log(NamedTuple):
    """A backend of mmengine's, the module without which it cannot work, and its settings by folder and run."""

    backend: str
    module: str
    settings: Callable[[Path, str], dict] = lambda folder, run: {}


def _of_wandb(folder: Path, run: str) -> dict:
    """Offline unless the environment says otherwise; a run that continues is another one of the same group."""
    mode = os.environ.get("WANDB_MODE", "offline")
    init = {"project": PROJECT, "name": run, "group": run, "mode": mode, "settings": {"silent": True, "console": "off"}}
    return {"init_kwargs": init, "define_metric_cfg": [{"name": "*", "step_metric": "iter"}]}


def _of_mlflow(folder: Path, run: str) -> dict:
    """Into a file unless the environment names a server; mlflow 3 has no folders of files any more."""
    return {"exp_name": PROJECT, "run_name": run, "tracking_uri": MLFLOW_SERVER or f"sqlite:///{folder}/mlflow.db"}


LOGS = {
    "tensorboard": Log("TensorboardVisBackend", "torch.utils.tensorboard"),
    "wandb": Log("WandbVisBackend", "wandb", _of_wandb),
    "mlflow": Log("MLflowLog", "mlflow", _of_mlflow),
}


def check(names: Iterable[str]) -> tuple[str, ...]:
    """The names, once they are known and what each needs can be imported.

    Raises:
        UserError: one is unknown, or its package is not installed or broken.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in LOGS:
            raise UserError(f"there is no log '{name}': give {listed(LOGS)}, or several with commas")
        try:
            found = importlib.import_module(LOGS[name].module)
            if found.__file__ is None:  # a folder of that name, such as wandb leaves
                raise ImportError("it is not installed")
        except ImportError as error:
            raise UserError(
                f"--log {name} cannot import {LOGS[name].module} ({first_line(error)}): pip install {name}, or leave "
                "it out"
            ) from None
    return names


def backends(names: Iterable[str], run_dir: Path) -> dict[str, BaseVisBackend]:
    """The backends by name for a run in `run_dir`; none writes before it is given something."""
    run = "/".join(run_dir.parts[-3:])
    made = {}
    for name in names:
        folder = run_dir / FOLDER / name
        made[name] = VISBACKENDS.build(
            dict(type=LOGS[name].backend, save_dir=str(folder), **LOGS[name].settings(folder, run))
        )
    return made
