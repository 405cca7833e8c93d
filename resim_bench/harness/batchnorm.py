"""Batch norm whose running statistics stay as they are while it normalises by the batch's."""

from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def running_statistics_kept(module: nn.Module):
    """Inside, batch norm uses the batch's statistics but leaves the running ones as they are, bit for bit."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0.0, _another_count(m)
    try:
        yield
    finally:
        for m, (momentum, batches) in zip(norms, kept, strict=True):
            m.momentum, m.num_batches_tracked = momentum, batches


def _another_count(norm: nn.modules.batchnorm._BatchNorm) -> Tensor | None:
    """What a norm may count in instead of its own; SyncBN refuses to have nothing."""
    own = norm.num_batches_tracked
    return own.clone() if isinstance(norm, nn.SyncBatchNorm) and own is not None else None
