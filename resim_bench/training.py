"""What both trainings ask of mmengine's Runner: draws that do not depend on history, safe checkpoints, a quiet console.

Every random draw is a function of the seed and of a position: of the draw's number for a sample, of the
iteration for the model. So nothing random needs to be saved, and an interrupted run that continues equals one
that was never interrupted.
"""

import contextlib
import ctypes
import io
import itertools
import logging
import os
import random
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_dist_info, init_dist, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, FUNCTIONS, HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from resim_bench import progress, settings  # noqa: F401 (progress registers hooks)
from resim_bench.errors import UserError

LAST = "last.pth"


@DATA_SAMPLERS.register_module()
class DrawSampler(Sampler):
    """An endless, reproducible stream of `(draw, index)`: the draw's number in the stream, and the sample.

    The stream is one permutation of the data set after another. Process r of w takes every w-th block of
    `batch_size` draws, so that one process with the whole batch sees the same images in the same order. A data
    set turns `draw` into the random numbers of the sample.

    Args:
        dataset: with `__len__`; `get_data_info(index)` giving `width` and `height` where aspects are grouped.
        seed: of the permutations.
        batch_size: samples a process takes at a time.
        drop_last: leave out the end of a permutation that fills no batch, as training by epochs does.
        group_by_aspect: emit blocks of `batch_size` samples that are all wide or all tall.
    """

    def __init__(self, dataset, seed, batch_size, drop_last=False, group_by_aspect=False):
        self.rank, self.world_size = get_dist_info()
        self.dataset, self.seed, self.batch_size = dataset, seed, batch_size
        total = batch_size * self.world_size
        self.size = len(dataset) // total * total if drop_last else len(dataset)
        self.group_by_aspect = group_by_aspect
        self.start = 0

    def _stream(self) -> Iterator[tuple[int, int]]:
        """The draws of all processes."""
        draws = itertools.count()
        for epoch in itertools.count():
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.dataset))[: self.size]
            for index in order.tolist():
                yield next(draws), index

    def _grouped(self, draws: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        waiting: dict[bool, list] = {False: [], True: []}
        for draw, index in draws:
            info = self.dataset.get_data_info(index)
            group = waiting[info["width"] < info["height"]]
            group.append((draw, index))
            if len(group) == self.batch_size:
                yield from group
                group.clear()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        own = (item for item in self._stream() if item[0] // self.batch_size % self.world_size == self.rank)
        return itertools.islice(self._grouped(own) if self.group_by_aspect else own, self.start, None)

    def skip(self, num_samples: int) -> None:
        """Start after `num_samples` draws of this process: what mmengine's loop calls when a run continues."""
        self.start = num_samples

    def __len__(self) -> int:
        return self.size


@HOOKS.register_module()
class ReseedHook(Hook):
    """Make the model's own draws (RoI sampling, shuffled keys) a function of (seed, iteration, process)."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Seed the global generators."""
        rank, _ = get_dist_info()
        state = np.random.SeedSequence((runner.seed, runner.iter, rank)).generate_state(1)[0]
        torch.manual_seed(int(state))
        np.random.seed(state)
        random.seed(int(state))


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Write `last.pth` once every `seconds` and at the end: whole or not at all, and never after a non-finite loss.

    The loss is read where that costs nothing (CPU) or before a checkpoint and every `interval` iterations, so
    that a GPU is not made to wait at each step.

    Raises:
        UserError: the loss is not finite.
    """

    priority = "VERY_LOW"

    def __init__(self, seconds=60.0, interval=50):
        self.seconds, self.interval = seconds, interval
        self.written = time.monotonic()
        self.loss = 0.0

    def before_train(self, runner):
        """Start the clock."""
        self.written = time.monotonic()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Add up the loss; check it; save."""
        self.loss = self.loss + outputs["loss"].detach()
        due = time.monotonic() - self.written >= self.seconds or runner.iter + 1 == runner.max_iters
        if due or self.loss.device.type == "cpu" or (runner.iter + 1) % self.interval == 0:
            self._check(runner)
        if due:
            self._save(runner)
            self.written = time.monotonic()

    def _check(self, runner):
        if not torch.isfinite(self.loss):
            kept = Path(runner.work_dir) / LAST
            where = f"the last checkpoint is kept in {kept}" if kept.is_file() else "there was no checkpoint yet"
            raise UserError(f"the loss is not finite at iteration {runner.iter + 1}: lower the learning rate; {where}")
        self.loss = 0.0

    def _save(self, runner):
        temporary = LAST + ".tmp"
        runner.save_checkpoint(runner.work_dir, temporary, by_epoch=False)
        if get_dist_info()[0] == 0:
            os.replace(Path(runner.work_dir) / temporary, Path(runner.work_dir) / LAST)


# What mmengine says of its own names, and of what is meant (frozen weights have no optimiser).
NOISE = (
    "is skipped since its requires_grad=False",
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
)
# mmengine's default for several processes, which share the cores: it is meant.
warnings.filterwarnings("ignore", message="Setting (OMP|MKL)_NUM_THREADS environment variable")


def _is_for_the_console(entry: logging.LogRecord) -> bool:
    """Progress lines, and warnings that someone can do something about."""
    noise = any(part in entry.getMessage() for part in NOISE)
    return not noise and (entry.levelno >= logging.WARNING or entry.module in ("logger_hook", "progress"))


def _end_workers(loader: DataLoader) -> None:
    """End persistent workers now; the garbage collector would wait five seconds for each."""
    if isinstance(loader._iterator, _MultiProcessingDataLoaderIter):
        loader._iterator._shutdown_workers()


class QuietRunner(Runner):
    """mmengine's Runner, whose log file holds everything and whose console shows progress and warnings only."""

    def build_logger(self, *args, **kwargs):
        """Narrow the console handler."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(_is_for_the_console)
                handler.setFormatter(logging.Formatter("  %(message)s"))
        return logger

    def train(self):
        """Train; the loader's workers end with it."""
        model = super().train()
        _end_workers(self.train_dataloader)
        return model

    def test(self):
        """Test; the loader's workers end with it."""
        metrics = super().test()
        _end_workers(self.test_dataloader)
        return metrics

    def resume(self, *args, **kwargs):
        """Continue, and say where; mmengine prints a path in every process."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().resume(*args, **kwargs)
        say(f"  continues after iteration {self.iter}")


@FUNCTIONS.register_module()
def leave_ctrl_c_to_the_main_process(worker_id: int) -> None:
    """What a loader's worker starts with: the main process ends it, so it need not say how it was interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def workers(wanted: int) -> int:
    """As many loader workers as wanted, but no more than cores."""
    return min(wanted, os.cpu_count() or 1)


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
        except UserError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1]:
        raise outcome[1]
    return outcome[0]


def say(line: str) -> None:
    """Print a line once, however many processes there are."""
    if is_main_process():
        print(line, flush=True)


def processes() -> str:
    """How many processes there are, and on what: for the first line that a training says."""
    count = get_dist_info()[1]
    return f"{count} process{'es' * (count > 1)} on {'GPU' if torch.cuda.is_available() else 'CPU'}"


def find(cfg: Config, setting: str):
    """The value of a dotted setting.

    Raises:
        UserError: `cfg` does not have it; the sentence says what there is where the name ends to be known.
    """
    above: list[str] = []
    node = cfg
    for part in setting.split("."):
        if _has_items(node) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict | Config) and part in node:
            node = node[part]
        else:
            raise UserError(f"there is no setting {setting}: {'.'.join(above) or 'the top level'} {_inside(node)}")
        above.append(part)
    return node


def _has_items(node) -> bool:
    """Whether it is a list of tables, as hooks and transforms are; other lists are given as a whole."""
    return isinstance(node, list) and bool(node) and all(isinstance(item, dict) for item in node)


def _inside(node) -> str:
    if isinstance(node, dict | Config):
        return f"has {', '.join(map(str, node)) or 'none'}"
    if _has_items(node):
        return f"has the items 0 to {len(node) - 1}"
    return f"is {settings.shown(node)} and has none of its own"


def merge_options(cfg: Config, options: dict) -> Config:
    """`cfg` with `{dotted setting: value}` from the command line.

    Raises:
        UserError: a setting that `cfg` does not have (a typing error would otherwise change nothing, silently), or two
            of which one is a part of the other.
    """
    for setting, value in options.items():
        find(cfg, setting)
        parts = [other for other in options if other.startswith(f"{setting}.")]
        if parts and not isinstance(value, dict):
            raise UserError(f"{parts[0]} is a part of {setting}, which is given, too: give one of them")
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a table where there is a number, and the like
        raise UserError(
            f"{', '.join(options)} cannot be changed like this ({first_line(error)}): name the settings inside"
        ) from None
    return cfg


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, as far as a sentence can hold it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextlib.contextmanager
def built_from(options: dict):
    """Around the building of models, loaders and the like: what it raises is the options' fault, if there are any.

    Which of them, nobody knows here: the sentence names all. Without options the fault is ours, and a traceback right.

    Raises:
        UserError: naming the options; one that was raised inside passes, as do errors of the operating system.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if not options:
            raise
        given = " and ".join(f"{name}={settings.shown(value)}" for name, value in options.items())
        what = f"the options {given} do" if len(options) > 1 else f"the option {given} does"
        raise UserError(
            f"{what} not make anything that can be trained ({type(error).__name__}: {first_line(error)}): change or "
            "leave out what does not fit"
        ) from error


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step instead of handing it back to the system.

    By default each large tensor is a mapping of its own, whose pages the kernel clears anew in every step: a third of
    the time of a ResNet-50 step on two cores. Other C libraries are left as they are.
    """
    trim_threshold, mmap_max = -1, -4  # their numbers in malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def build_runner(cfg: Config, run_dir: Path, seed: int, launcher: str = "none") -> Runner:
    """A Runner for `cfg` in `run_dir`; it continues from the checkpoint there, if there is one.

    `cfg` is a Runner configuration with `train_cfg` by iterations; hooks, seed, logs and resume are set here.
    """
    join_processes(launcher)
    if not torch.cuda.is_available():
        keep_freed_memory()
    run_dir = Path(run_dir)
    cfg = Config(cfg.to_dict())
    cfg.work_dir = str(run_dir)
    # mmengine keeps one logger and message hub a name; a process may train many models.
    cfg.experiment_name = f"{'_'.join(run_dir.parts[-3:])}_{time.monotonic_ns()}"
    cfg.launcher = launcher
    cfg.randomness = dict(seed=seed)
    logger = cfg.default_hooks.logger | dict(type="ProgressHook")
    cfg.default_hooks |= dict(checkpoint=None, runtime_info=dict(type="InfoHook"), logger=logger)
    cfg.custom_hooks = [
        *cfg.get("custom_hooks", []),
        dict(type="ReseedHook"),
        dict(type="SafeCheckpointHook", interval=logger.interval),
    ]
    for loader in (cfg.train_dataloader, cfg.get("test_dataloader")):
        if loader and loader.get("num_workers"):
            loader.num_workers = workers(loader.num_workers)
            loader.worker_init_fn = dict(type="leave_ctrl_c_to_the_main_process")
    cfg.log_processor = dict(by_epoch=False, window_size=logger.interval)
    last = run_dir / LAST
    if last.is_file():
        cfg.load_from, cfg.resume = str(last), True
    if launcher != "none" and not torch.cuda.is_available():
        cfg.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
    return QuietRunner.from_cfg(cfg)
