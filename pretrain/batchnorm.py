"""Batch norm in groups: one process with the statistics of several GPUs, in one pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that in training treats each `group` images `(N, C, H, W)` as if they were on a GPU of their own.

    Running statistics follow the first group, as those of the first GPU are the ones that are saved. Keys and
    parameters are `nn.BatchNorm2d`'s.
    """

    group: int

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same, each group by its own mean and variance; evaluation is batch norm's."""
        if not self.training or len(x) <= self.group:
            return super().forward(x)
        first, *others = x.split(self.group)
        others = [F.batch_norm(o, None, None, self.weight, self.bias, training=True, eps=self.eps) for o in others]
        return torch.cat((super().forward(first), *others))


def in_groups(module: nn.Module, group: int) -> nn.Module:
    """The module, whose batch norms work in groups of `group` images from here on."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__, norm.group = GroupedBatchNorm2d, group
    return module
