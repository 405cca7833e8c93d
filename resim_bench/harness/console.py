"""What a training says on a terminal."""

import logging
import warnings

import torch
from mmengine.dist import get_dist_info, is_main_process

# What mmengine says of its own names, and of what is meant (frozen weights have no optimiser).
NOISE = (
    "is skipped since its requires_grad=False",
    '"FileClient" will be deprecated in future',
    "Please make sure that the mlflow server is running",  # it is a file
    '"HardDiskBackend" is the alias of "LocalBackend"',
)


# mmengine's default for several processes, which share the cores: as it should be.
warnings.filterwarnings("ignore", message="Setting (OMP|MKL)_NUM_THREADS environment variable")


def is_for_the_console(entry: logging.LogRecord) -> bool:
    """Progress lines, and warnings that someone can do something about."""
    noise = any(part in entry.getMessage() for part in NOISE)
    return not noise and (entry.levelno >= logging.WARNING or entry.module in ("logger_hook", "progress"))


def say(line: str) -> None:
    """Print a line once, however many processes there are."""
    if is_main_process():
        print(line, flush=True)


def processes() -> str:
    """How many processes there are, and on what: for the first line that a training says."""
    count = get_dist_info()[1]
    return f"{count} process{'es' * (count > 1)} on {'GPU' if torch.cuda.is_available() else 'CPU'}"
