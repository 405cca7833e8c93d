"""Checkpoints of a run: written whole or not at all, read without executing anything."""

import contextlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from resim_bench import files
from resim_bench.errors import UserError
from resim_bench.harness import runs


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
    cut = 0  # see `cut_off`

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
        due = time.monotonic() - self.written >= self.seconds or runner.iter + 1 in (runner.max_iters, self.cut)
        if due or self.loss.device.type == "cpu" or (runner.iter + 1) % self.interval == 0:
            self._refuse(runner, "loss", torch.isfinite(self.loss))
            self.loss = 0.0
        if due:
            self._save(runner)
            self.written = time.monotonic()
        if runner.iter + 1 == self.cut:
            raise _CutOffError

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


class _CutOffError(KeyboardInterrupt):
    """Ctrl-C by `cut_off`."""


@contextlib.contextmanager
def cut_off(after: int) -> Iterator[None]:
    """Inside, a training ends as by Ctrl-C behind a checkpoint of iteration `after`: to see how it goes on."""
    SafeCheckpointHook.cut = after
    try:
        with contextlib.suppress(_CutOffError):
            yield
    finally:
        SafeCheckpointHook.cut = 0


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
        checkpoint["meta"].pop("config", None)  # mmengine would execute it; this suite writes none
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
