"""Several processes: how they are connected, and what the first does for all."""

import atexit
import os

import torch
from mmengine.dist import broadcast_object_list, get_dist_info, init_dist, is_distributed
from mmengine.model import is_model_wrapper
from torch import nn

from resim_bench.errors import UserError
from resim_bench.harness.options import first_line


def join_processes(launcher: str) -> None:
    """Connect the processes that `launcher` started: over NCCL on GPUs, over gloo without.

    Raises:
        UserError: a launcher that works on GPUs only, or one that did not start this process.
    """
    if launcher == "none" or is_distributed():
        return
    _check_launched(launcher)
    try:
        if torch.cuda.is_available():
            init_dist(launcher)
        elif launcher == "pytorch":  # mmengine would select a GPU even for gloo
            torch.distributed.init_process_group("gloo")
        else:
            raise UserError(f"without GPUs several processes start by torchrun (--launcher pytorch), not by {launcher}")
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--launcher {launcher} cannot connect the processes ({first_line(error)}): start all of them by "
            f"{_STARTS_BY[launcher]}"
        ) from error
    atexit.register(torch.distributed.destroy_process_group)  # its threads abort a process that ends with them


# What each launcher tells the processes that it starts, as mmengine reads it.
_LAUNCHED = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "MASTER_ADDR"),
}


_STARTS_BY = {"pytorch": "torchrun", "slurm": "srun", "mpi": "mpirun"}


def _check_launched(launcher: str) -> None:
    how = f"start by {_STARTS_BY[launcher]}, or leave --launcher out"
    for name in _LAUNCHED[launcher]:
        if name not in os.environ:
            raise UserError(f"--launcher {launcher} finds no {name} in the environment: {how}")
        is_number = not name.endswith(("ADDR", "NODELIST"))
        if is_number and not os.environ[name].isdecimal():
            raise UserError(f"--launcher {launcher} finds {name}={os.environ[name]!r}, which is no number: {how}")


def on_main_process(function):
    """The result of `function()`, called by the first process alone; all processes raise what it raises."""
    outcome = [None, None]
    if get_dist_info()[0] == 0:
        try:
            outcome[0] = function()
        except (UserError, OSError) as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1]:
        raise outcome[1]
    return outcome[0]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of what connects it with other processes, or the model itself."""
    return model.get_submodule("module") if is_model_wrapper(model) else model
