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
import re
import shutil
import signal
import time
import warnings
from collections import OrderedDict
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

from resim_bench import files, progress, runs, settings  # noqa: F401 (progress registers hooks)
from resim_bench.errors import UserError


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
        square: which of them an image is that is neither; Detectron2 says tall.
    """

    def __init__(self, dataset, seed, batch_size, drop_last=False, group_by_aspect=False, square="wide"):
        self.rank, self.world_size = get_dist_info()
        self.dataset, self.seed, self.batch_size = dataset, seed, batch_size
        total = batch_size * self.world_size
        self.size = len(dataset) // total * total if drop_last else len(dataset)
        self.group_by_aspect, self.square = group_by_aspect, square
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
            width, height = info["width"], info["height"]
            group = waiting[width < height or (width == height and self.square == "tall")]
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
    """Write `last.pth` once every `seconds` and at the end: whole or not at all, and nothing that is not finite.

    The one before is kept as `before.pth`. The loss is read where that costs nothing (CPU) or before a checkpoint and
    every `interval` iterations, so that a GPU is not made to wait at each step.

    A checkpoint says which run it is of, and under which circumstances (threads, processes, device) it came about:
    what a continued run changes of them may change its rounding.

    Raises:
        UserError: the loss or the weights are not finite, or a checkpoint is of another run.
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
            self._refuse(runner, "loss", torch.isfinite(self.loss))
            self.loss = 0.0
        if due:
            self._save(runner)
            self.written = time.monotonic()

    @staticmethod
    def _refuse(runner, what, finite):
        if not finite:
            kept = runs.checkpoint(runner.work_dir)
            where = f"the last checkpoint is kept in {kept}" if kept else "there was no checkpoint yet"
            verb = "is" if what == "loss" else "are"
            raise UserError(
                f"the {what} {verb} not finite at iteration {runner.iter + 1}: lower the learning rate; {where}"
            )

    def _save(self, runner):
        values = [value for value in runner.model.state_dict().values() if value.is_floating_point()]
        self._refuse(runner, "weights", all(torch.isfinite(value).all() for value in values))
        run_dir = Path(runner.work_dir)
        half, last = run_dir / runs.HALF, run_dir / runs.LAST
        try:
            runner.save_checkpoint(runner.work_dir, half.name, by_epoch=False)  # by the first process alone
            if is_main_process():
                files.sync(half)
                if last.exists():
                    os.replace(last, run_dir / runs.BEFORE)
                os.replace(half, last)
                files.sync_folder(run_dir)
        except OSError:
            half.unlink(missing_ok=True)  # it takes room on a disk that has none
            raise

    def before_save_checkpoint(self, runner, checkpoint):
        """Say which run it is of; keep nothing that takes code to read."""
        checkpoint["meta"] |= {"run": runner.run, "circumstances": runner.circumstances, "changes": runner.changes}
        _forget_the_log(checkpoint["message_hub"])

    def after_load_checkpoint(self, runner, checkpoint):
        """Keep what is other than before."""
        meta = checkpoint["meta"]
        before = meta.get("circumstances", {})
        runner.changes = list(meta.get("changes", []))
        for name, now in runner.circumstances.items():
            if name in before and before[name] != now:
                runner.changes.append({"iteration": meta["iter"], "setting": name, "was": before[name], "is": now})


def _forget_the_log(hub: dict) -> None:
    """Take mmengine's history of what the log has out of a checkpoint: it is of no use, and of numpy's types."""
    hub["log_scalars"], hub["resumed_keys"] = OrderedDict(), OrderedDict()
    hub["runtime_info"].pop("eta", None)


def read_checkpoint(file: Path, run: str = "") -> dict:
    """A checkpoint of a training of this suite, on the CPU; nothing in it is executed.

    Args:
        run: the digest of the run's configuration; a checkpoint that names another is refused.

    Raises:
        UserError: it is damaged, or of something else.
    """
    file = Path(file)
    other = file.with_name(runs.BEFORE)
    then = (
        f"the run then continues from {other.name}" if other.exists() and other != file else "the run then starts anew"
    )
    try:
        with torch.serialization.safe_globals(_OF_OLD_CHECKPOINTS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        missing = [key for key in ("meta", "state_dict", "optimizer", "message_hub") if key not in checkpoint]
        if missing or not isinstance(checkpoint["meta"].get("iter"), int):
            raise ValueError(f"it has no {(missing or ['meta.iter'])[0]}")
        _forget_the_log(checkpoint["message_hub"])
    except Exception as error:  # what damaged bytes raise, no list can hold
        if isinstance(error, OSError) and error.filename:
            raise
        reason = re.split(r"\.\s|\n", str(error).strip() or type(error).__name__)[0]
        raise UserError(f"{file} is damaged, or no checkpoint of this suite ({reason}): delete it; {then}") from None
    if run and checkpoint["meta"].get("run", run) != run:
        raise UserError(f"{file} is the checkpoint of another run: delete it; {then}")
    return checkpoint


class _Forgotten:
    """What stands for mmengine's history of the log, which checkpoints of before still hold: it holds nothing."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


_OF_OLD_CHECKPOINTS: list = [
    (_Forgotten, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",
        "_codecs.encode",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    )
]


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
    """mmengine's Runner, whose log file holds everything and whose console shows progress and warnings only.

    It is built whole before its run has a directory, in a temporary one, so that what cannot be built leaves no trace;
    then it moves in.

    Attributes:
        run: digest of the configuration that its run belongs to.
        circumstances: what may change rounding, though no number should depend on it.
        changes: of the circumstances, each time that the run was continued.
    """

    run = ""

    def __init__(self, **settings):
        self.circumstances, self.changes = {}, []
        self.temporary = contextlib.ExitStack()
        super().__init__(**settings | {"work_dir": str(self.temporary.enter_context(files.temporary("resim-bench-")))})
        # What mmengine builds when training or testing begins.
        self._train_loop = self.build_train_loop(self._train_loop)
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
        if self._test_loop is not None:
            self._test_loop = self.build_test_loop(self._test_loop)

    def build_logger(self, *args, **kwargs):
        """Narrow the console handler; a log that cannot be written stops the run."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(_is_for_the_console)
                handler.setFormatter(logging.Formatter("  %(message)s"))
            handler.handleError = _raise
        return logger

    def move_in(self, run_dir: Path, run: str = "", **circumstances) -> "QuietRunner":
        """Go on in `run_dir`, from the checkpoint there if there is one.

        Args:
            run: digest of the configuration that the directory belongs to.
            circumstances: more of them than threads, processes and device.
        """
        before, run_dir = self.work_dir, Path(run_dir).absolute()
        self.run = run
        self.circumstances = {
            "threads": torch.get_num_threads(),
            "processes": get_dist_info()[1],
            "device": runs.device(),
        } | circumstances
        if is_main_process():
            shutil.copytree(before, run_dir, dirs_exist_ok=True)
        self._work_dir, self._log_dir = str(run_dir), str(run_dir / self.timestamp)
        for handler in self.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
                handler.baseFilename = handler.baseFilename.replace(before, str(run_dir))
                handler.stream = handler._open()  # mmengine writes to it directly, too
        for backend in self.visualizer._vis_backends.values():
            moved = {k: v.replace(before, str(run_dir)) for k, v in vars(backend).items() if isinstance(v, str)}
            vars(backend).update(moved)
        self.temporary.close()
        last = runs.checkpoint(run_dir)
        self._load_from: str | None = str(last) if last else None
        self._resume = last is not None
        return self

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
        for change in self.changes:
            if change["iteration"] == self.iter:
                was = f"{change['setting']} was {change['was']} and is now {change['is']}"
                say(f"  {was}: this may change the rounding, and is recorded")

    def load_checkpoint(self, filename, map_location="cpu", **_):
        """What mmengine's does, without executing anything that the file holds, and strictly.

        Raises:
            UserError: the checkpoint is damaged, or of another run.
        """
        checkpoint = read_checkpoint(Path(filename), self.run)
        model = getattr(self.model, "module", self.model)
        own, given = (
            {k: tuple(v.shape) for k, v in state.items()} for state in (model.state_dict(), checkpoint["state_dict"])
        )
        if own != given:
            raise UserError(f"{filename} is the checkpoint of another run, of another network: delete it to start anew")
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return checkpoint


def _raise(record):
    """What a log's handler does where it cannot write: not a word about itself, but stop."""
    raise  # noqa: PLE0704 (it is called while the error is handled)


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
        except (UserError, OSError) as error:
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


def build_runner(cfg: Config, seed: int, launcher: str = "none") -> QuietRunner:
    """A Runner for `cfg`, complete but for the directory that it works in (`QuietRunner.move_in`).

    `cfg` is a Runner configuration with `train_cfg` by iterations; hooks, seed, logs and resume are set here.
    """
    join_processes(launcher)
    if not torch.cuda.is_available():
        keep_freed_memory()
    cfg = Config(cfg.to_dict())
    cfg.work_dir = "a temporary one at first"
    # mmengine keeps one logger and message hub a name; a process may train many models.
    cfg.experiment_name = f"run_{time.monotonic_ns()}"
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
    if launcher != "none" and not torch.cuda.is_available():
        cfg.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
    return QuietRunner.from_cfg(cfg)


@contextlib.contextmanager
def claimed(run_dir: Path, config: dict, output: Path, resume: bool, **how) -> Iterator[bool]:
    """`runs.claimed` by the first process for all of them."""
    with contextlib.ExitStack() as stack:
        yield on_main_process(lambda: stack.enter_context(runs.claimed(run_dir, config, output, resume, **how)))
