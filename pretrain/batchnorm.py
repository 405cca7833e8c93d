"""Batch norm in groups: one process with the statistics of several GPUs."""

from torch import Tensor, nn

from resim_bench.harness.batchnorm import running_statistics_kept


def in_groups(module: nn.Module, images: Tensor, group: int, follow: bool = True) -> list:
    """The module's output for each batch-norm group, as if each `group` images were on a GPU of their own.

    Running statistics follow the first group, as those of the first GPU are the ones that are saved; without `follow`
    they stay as they are.
    """
    parts = list(images.split(group))
    outputs = [module(parts.pop(0))] if follow else []
    with running_statistics_kept(module):
        return outputs + [module(part) for part in parts]
