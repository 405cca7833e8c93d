"""mmengine's Runner as both trainings use it: built before it has a directory, quiet, and safe to interrupt."""

import contextlib
import ctypes
import io
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_dist_info, is_main_process
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from resim_bench import files
from resim_bench.errors import UserError
from resim_bench.harness import draws, logs, precision, progress, runs  # noqa: F401 (they register hooks)
from resim_bench.harness.checkpoint import read_checkpoint
from resim_bench.harness.console import is_for_the_console, say
from resim_bench.harness.launch import join_processes, on_main_process, unwrapped


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
        log: where else progress goes, by the names of `logs.LOGS`.
    """

    run = ""
    log: tuple[str, ...] = ()

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
                handler.addFilter(is_for_the_console)
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
        self.visualizer._vis_backends |= logs.backends(self.log, run_dir)
        self.temporary.close()
        last = runs.checkpoint(run_dir)
        self._load_from: str | None = str(last) if last else None
        self._resume = last is not None
        return self

    def train(self):
        """Train; the loader's workers end with it, and the logs where no test follows."""
        model = super().train()
        _end_workers(self.train_dataloader)
        if self._test_loop is None:
            self.visualizer.close()
        return model

    def test(self):
        """Test; the loader's workers and the logs end with it."""
        metrics = super().test()
        _end_workers(self.test_dataloader)
        if is_main_process():
            for name in self.log:
                self.visualizer.get_backend(name).add_scalars(metrics, step=self.iter)
        self.visualizer.close()
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
        model = unwrapped(self.model)
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


def loader_workers(wanted: int) -> int:
    """As many loader workers as wanted, but no more than cores that are ours."""
    return min(wanted, len(os.sched_getaffinity(0)))


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


def build_runner(cfg: Config, seed: int, launcher: str = "none", log: Iterable[str] = ()) -> QuietRunner:
    """A Runner for `cfg`, complete but for the directory that it works in (`QuietRunner.move_in`).

    `cfg` is a Runner configuration with `train_cfg` by iterations; hooks, seed, logs and resume are set here.

    Raises:
        UserError: a log that there is not, or that is not installed.
    """
    log = logs.check(log)
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
            loader.num_workers = loader_workers(loader.num_workers)
            loader.worker_init_fn = dict(type="leave_ctrl_c_to_the_main_process")
    cfg.log_processor = dict(by_epoch=False, window_size=logger.interval)
    if launcher != "none" and not torch.cuda.is_available():
        cfg.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
    runner = QuietRunner.from_cfg(cfg)
    runner.log = log
    return runner


@contextlib.contextmanager
def claimed(run_dir: Path, config: dict, output: Path, resume: bool, **how) -> Iterator[bool]:
    """`runs.claimed` by the first process for all of them."""
    with contextlib.ExitStack() as stack:
        yield on_main_process(lambda: stack.enter_context(runs.claimed(run_dir, config, output, resume, **how)))
