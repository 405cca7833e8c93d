"""The collectives that the methods need; without a process group each is the identity."""

import torch
import torch.distributed as dist
from mmengine.dist import get_rank as rank
from mmengine.dist import get_world_size as world_size
from torch import Tensor

__all__ = ["all_gather", "all_reduce_sum", "rank", "world_size"]


def all_gather(tensor: Tensor) -> Tensor:
    """Tensors of one shape from all processes, concatenated in the order of ranks; carries no gradient."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over processes; carries no gradient."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
