"""Batch norm in groups: one process with the statistics of several GPUs."""

from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def running_statistics_kept(module: nn.Module):
    """Inside, batch norm uses the batch's statistics but leaves the running ones as they are, bit for bit."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for m, (momentum, batches) in zip(norms, kept, strict=True):
            m.momentum, m.num_batches_tracked = momentum, batches


def in_groups(module: nn.Module, images: Tensor, group: int, follow: bool = True) -> list:
    """The module's output for each batch-norm group, as if each `group` images were on a GPU of their own.

    Running statistics follow the first group, as those of the first GPU are the ones that are saved; without `follow`
    they stay as they are.
    """
    parts = list(images.split(group))
    outputs = [module(parts.pop(0))] if follow else []
    with running_statistics_kept(module):
        return outputs + [module(part) for part in parts]
