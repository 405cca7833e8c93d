"""The log lines of a training run: one per interval, with its bottleneck and what waiting for data costs.

Nothing here waits for the device in a step: losses are added up where they are, and all are read once per interval.
"""

import resource
import time
from datetime import timedelta

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS

STARVED = 0.2  # of an interval: the share of its time that may go by waiting for data before a warning
WORTH_SAYING = 1.0  # seconds of an interval: below, the share of a few short steps says little


def peak_memory() -> int:
    """The most bytes that this process has held so far: on a GPU those of its tensors, else all of its memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class TimedBatches:
    """The training loop's iterator of batches, and how long it was waited for.

    Attributes:
        waited: seconds.
        starved: those of them after which the device had nothing left to do. The host runs ahead of a GPU, and what
            it waits for while the GPU is busy costs nothing. (Untested on a GPU.)
    """

    def __init__(self, batches):
        self.batches = batches
        self.waited = self.starved = 0.0

    def __next__(self):
        started = time.perf_counter()
        batch = next(self.batches)
        seconds = time.perf_counter() - started
        self.waited += seconds
        if not torch.cuda.is_available() or torch.cuda.current_stream().query():
            self.starved += seconds
        return batch

    def skip_iter(self, count: int) -> None:
        """What mmengine's loop calls when a run continues."""
        self.batches.skip_iter(count)


@HOOKS.register_module()
class InfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook without its reading of every value after each step, for which a GPU has to wait."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Nothing: ProgressHook keeps the values."""


@HOOKS.register_module()
class ProgressHook(LoggerHook):
    """A progress line every `interval` iterations and after the last; tests are logged as mmengine does.

    It shows the iteration, the learning rate, the time left, the mean seconds of a step and those in which it waited
    for the loader, images per second over all processes (a pair of views is one image), the process's peak memory, and
    the losses and accuracies, each the mean over the interval and all processes. A run is warned once if its loader
    starves the device after the first interval, in which workers start.
    """

    priority = "HIGH"  # before what is no part of a step: precise batch norm, checkpoints

    def after_run(self, runner):
        """Nothing: the runner closes its logs, once a test does not follow any more."""

    def before_train(self, runner):
        """Start the clocks."""
        loop = runner.train_loop
        loop.dataloader_iterator = self.batches = TimedBatches(loop.dataloader_iterator)
        self.start = runner.iter, time.perf_counter()
        self.warned = False
        self._begin(*self.start)

    def _begin(self, iteration, now):
        self.since = iteration, now
        self.batches.waited = self.batches.starved = 0.0
        self.sums = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Add the values up; once an interval print their means."""
        for name, value in outputs.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._report(runner, done)

    def _report(self, runner, done):
        steps = done - self.since[0]
        means = torch.stack(list(self.sums.values())) / steps
        all_reduce(means, "mean")
        means = means.tolist()  # the one read: it waits for the device
        now = time.perf_counter()
        seconds = now - self.since[1]
        values = {
            "lr": runner.optim_wrapper.get_lr()["lr"][0],
            "eta": (now - self.start[1]) / (done - self.start[0]) * (runner.max_iters - done),
            "time": seconds / steps,
            "data_time": self.batches.waited / steps,
            "images/s": runner.train_dataloader.batch_size * get_world_size() * steps / seconds,
            "memory": peak_memory(),
            **dict(zip(self.sums, means, strict=True)),
        }
        runner.logger.info(_line(done, runner.max_iters, values))
        runner.visualizer.add_scalars({"iter": done, **values}, step=done, file_path=self.json_log_path)
        if self.since[0] > self.start[0] and not self.warned and self._starves(seconds):
            self.warned = True
            runner.logger.warning(_advice(self.batches.starved, seconds, runner.train_dataloader.num_workers))
        self._begin(done, now)

    def _starves(self, seconds):
        return self.batches.starved > max(STARVED * seconds, WORTH_SAYING)


_FORMATS = {
    "lr": lambda value: f"{value:.4e}",
    "eta": lambda value: str(timedelta(seconds=round(value))),
    "time": lambda value: f"{value:.3f} s",
    "data_time": lambda value: f"{value:.3f} s",
    "images/s": lambda value: f"{value:.1f}",
    "memory": lambda value: f"{value / 2**20:,.0f} MB",
}


def _line(done: int, iterations: int, values: dict[str, float]) -> str:
    parts = [f"Iter(train) [{done:{len(str(iterations))}}/{iterations}]"]
    parts += [f"{name}: {_FORMATS.get(name, '{:.4f}'.format)(value)}" for name, value in values.items()]
    return "  ".join(parts)


def _advice(starved: float, seconds: float, workers: int) -> str:
    return (
        f"the loader starves the device: {starved / seconds:.0%} of the time is spent waiting for data. Give it more "
        f"than {workers} workers (`workers` of a recipe, `train_dataloader.num_workers` of a protocol) or a faster disk"
    )
