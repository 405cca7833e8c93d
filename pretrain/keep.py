"""Backbones on the way: after chosen epochs of a training, each a file of an id of its own, `<id>@<epoch>ep`.

Such a backbone is the middle of a longer cosine and nothing else: its learning rate has not come down yet.
"""

from collections.abc import Callable
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from resim_bench import backbone, experiments
from resim_bench.errors import UserError


def files(work_dir: Path, pretrain_id: str, seed: int, epochs: tuple[int, ...]) -> dict[int, Path]:
    """Where the backbones of `epochs` go, by epoch."""
    return {epoch: backbone.path(work_dir, experiments.kept_id(pretrain_id, epoch), seed) for epoch in epochs}


def refuse_past(kept: dict[int, Path], epochs_done: float) -> None:
    """Refuse to go on where the epochs of missing files are over.

    Raises:
        UserError: names the first of them.
    """
    for epoch, file in sorted(kept.items()):
        if epoch <= epochs_done and not file.is_file():
            raise UserError(
                f"keep has epoch {epoch}, which this run is past without having left {file}: leave it out, or start "
                "anew with another --work-dir"
            )


class KeepHook(Hook):
    """Calls `save(file, epoch, runner)` after each epoch of `kept`, unless the file is there.

    Args:
        kept: file by epoch.
        epoch_iters: iterations of an epoch.
        save: writes the file; called in the first process alone.
    """

    # Before a checkpoint, so that a run which continues from one has left what lies before it.
    priority = "LOW"

    def __init__(self, kept: dict[int, Path], epoch_iters: int, save: Callable[[Path, int, Runner], None]):
        self.kept, self.epoch_iters, self.save = kept, epoch_iters, save

    def before_train(self, runner):
        """Refuse what can no longer be kept."""
        refuse_past(self.kept, runner.iter / self.epoch_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Save where an epoch to keep is over."""
        epoch, rest = divmod(runner.iter + 1, self.epoch_iters)
        if rest == 0 and epoch in self.kept and is_main_process() and not self.kept[epoch].is_file():
            self.save(self.kept[epoch], epoch, runner)
