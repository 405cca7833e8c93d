"""Contrastive losses: one of an image against a queue (MoCo), and of a region against regions (ReSim).

Each function normalises its inputs to unit length. With `gather=True` the keys of all processes are negatives and
the divisors count the windows of all processes; the mean of the value over processes (which is what
DistributedDataParallel takes of gradients) is then the loss of one process with the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.distributed import all_gather, all_reduce_sum, rank, world_size
from pretrain.geometry import valid_rows

CHUNK = 2**22  # logits of dense negatives that are alive at a time: 16 MB in float32


class _Contrast(torch.autograd.Function):
    """Cross-entropy of each query's own key against it and the negatives, a chunk of queries at a time.

    `(query (n, D), positive (n, D), negatives (M, D), temperature)` to losses `(n,)`, and 1 where the own key is the
    most similar `(n,)`. Keys carry no gradient, so that of a chunk's queries follows from its softmax by one product:
    it is taken at once, beside the value, and no logits outlive their chunk.
    """

    @staticmethod
    def forward(ctx, query, positive, negatives, temperature):
        losses, right, gradient = query.new_empty(len(query)), query.new_empty(len(query)), torch.empty_like(query)
        rows = max(1, CHUNK // max(1, len(negatives)))
        for start in range(0, len(query), rows):
            part = slice(start, start + rows)
            own = (query[part] * positive[part]).sum(dim=1, keepdim=True) / temperature
            logits = (query[part] / temperature) @ negatives.T
            highest = torch.maximum(own, logits.amax(dim=1, keepdim=True)) if len(negatives) else own
            share, own_share = logits.sub_(highest).exp_(), (own - highest).exp()
            total = share.sum(dim=1, keepdim=True) + own_share
            losses[part] = (total.log() + highest - own)[:, 0]
            right[part] = (own == highest)[:, 0].to(right.dtype)
            gradient[part] = ((share @ negatives + own_share * positive[part]) / total - positive[part]) / temperature
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx, of_losses, _):
        (gradient,) = ctx.saved_tensors
        return of_losses[:, None] * gradient, None, None, None


def instance_info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of an image's embedding: its other view against a queue of earlier keys.

    Args:
        query, key: `(N, D)`; the key carries no gradient.
        queue: `(K, D)`, of unit length.

    Returns:
        The mean loss, and the share of queries whose own key is the most similar.

    Source: He et al., "Momentum Contrast", equation (1).
    """
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1).detach()
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat((positive, query @ queue.T), dim=1) / temperature
    target = logits.new_zeros(len(logits), dtype=torch.long)
    return F.cross_entropy(logits, target), (logits.argmax(dim=1) == 0).float().mean()


def region_info_nce(
    query: Tensor,
    key: Tensor,
    valid: Tensor,
    temperature: float,
    reduction: str = "image",
    gather: bool = False,
    rows: tuple[Tensor, ...] | None = None,
    first: int = 0,
    with_accuracy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Region similarity loss, equation (2) with the -log that the print leaves out.

    The positive of window i is the same window in the key view; its negatives are all other valid windows of the
    batch in the key views, of the same image and of the others.

    Args:
        query, key: `(N, R, D)` pooled features; the key carries no gradient.
        valid: `(N, R)` bool; other windows change neither value nor gradient.
        temperature: tau of equation (1).
        reduction: `image` takes the mean over an image's windows, then over the images that have one (equation 2);
            `window` takes one mean over all valid windows; `group` takes it in each batch-norm group, as in each
            GPU, then over the groups that have one (the release).
        gather: use the keys of all processes.
        rows: of `valid`, see `pretrain.geometry.Windows`; without them the host waits until `valid` is known.
        first: `query` may be that of some batch-norm groups only, `(n, R, D)` from this image of the batch on; the
            result is their share, and the shares of all parts add up to the whole.
        with_accuracy: also return the share of windows whose own key is the most similar.

    Returns:
        A scalar; 0 when no window is valid.
    """
    rows, part = _parts(valid, rows, first, len(query))
    own = torch.cat(rows[part])
    query = F.normalize(_at(query, own, first), dim=1)
    if gather and world_size() > 1:
        # How many windows count in other processes is not known here: theirs are masked, not left out.
        keys = all_gather(F.normalize(key, dim=2).detach()).flatten(0, 1)
        everyone = all_gather(valid).flatten()
        logits = (query @ keys.T / temperature).masked_fill(~everyone, -torch.inf)
        target = rank() * valid.numel() + own
    else:
        keys = F.normalize(_at(key, torch.cat(rows)), dim=1).detach()
        logits = query @ keys.T / temperature
        target = sum(map(len, rows[: part.start])) + torch.arange(len(own), device=own.device)
    losses = F.cross_entropy(logits, target, reduction="none")
    right = logits.detach().argmax(dim=1) == target if len(own) else target.bool()
    return _reduced(losses, right, own, valid, len(valid) // len(rows), reduction, gather, with_accuracy)


def dense_info_nce(
    query: Tensor,
    key: Tensor,
    valid: Tensor,
    negatives: Tensor,
    temperature: float,
    reduction: str = "window",
    gather: bool = False,
    rows: tuple[Tensor, ...] | None = None,
    first: int = 0,
    with_accuracy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The release's variant: a window against its key and against every position of the pooled key maps.

    Args:
        query, key, valid, temperature, reduction, rows, first, with_accuracy: as in `region_info_nce`.
        negatives: `(M, D)`, see `dense_negatives`; or `(G, M, D)`, where each of G equal groups of images has its
            own, as the images of one GPU have in the release. They carry no gradient.
        gather: add the negatives of all processes.
    """
    if rows is None and negatives.dim() == 3:
        rows = valid_rows(valid, len(valid) // len(negatives))
    rows, part = _parts(valid, rows, first, len(query))
    own = torch.cat(rows[part])
    query, key = F.normalize(_at(query, own, first), dim=1), F.normalize(_at(key, own), dim=1).detach()
    negatives = all_gather(negatives.detach()) if gather and world_size() > 1 else negatives.detach()
    groups = negatives[part] if negatives.dim() == 3 else negatives[None]
    sizes = [len(r) for r in rows[part]] if negatives.dim() == 3 else [len(own)]
    contrasts = [
        _Contrast.apply(q, k, F.normalize(n, dim=1), temperature)
        for q, k, n in zip(query.split(sizes), key.split(sizes), groups, strict=True)
    ]
    losses, right = map(torch.cat, zip(*contrasts, strict=True))
    return _reduced(losses, right, own, valid, len(valid) // len(rows), reduction, world_size() > 1, with_accuracy)


def dense_negatives(key_map: Tensor) -> Tensor:
    """Every position of the key map after 3 x 3 average pooling without padding: `(N, D, H, W)` to `(M, D)`."""
    pooled = F.avg_pool2d(key_map, kernel_size=3, stride=1)
    return pooled.permute(0, 2, 3, 1).reshape(-1, key_map.shape[1])


def _parts(valid, rows, first, images) -> tuple[tuple[Tensor, ...], slice]:
    """The rows of all groups, and which of the groups the query has."""
    rows = valid_rows(valid, len(valid)) if rows is None else rows
    group = len(valid) // len(rows)
    return rows, slice(first // group, (first + images) // group)


def _at(pooled, rows, first=0) -> Tensor:
    """`(n, R, D)` of the images from `first` on, at these rows of the batch: `(V, D)`."""
    return pooled.flatten(0, 1).index_select(0, rows - first * pooled.shape[1])


def _reduced(losses, right, rows, valid, group, reduction, distributed, with_accuracy):
    """The share of some rows, whose losses are `(V,)`, in the mean by image, window or group, and in the accuracy.

    Where `distributed`, the divisors count the windows of all processes.
    """
    counts = valid.to(losses.dtype)
    in_image = counts.sum(dim=1, keepdim=True)
    if reduction == "image":
        weights, count = counts / in_image.clamp(min=1), (in_image > 0).sum()
    elif reduction == "window":
        weights, count = counts, in_image.sum()
    elif reduction == "group":
        in_group = in_image.view(-1, group).sum(dim=1)
        weights = counts / in_group.clamp(min=1).repeat_interleave(group)[:, None]
        count = (in_group > 0).sum()
    else:
        raise ValueError(f"reduction is 'image', 'window' or 'group', not {reduction!r}")
    scale = 1
    if distributed:
        count, scale = all_reduce_sum(count), world_size()
    loss = (losses * weights.flatten()[rows]).sum() * scale / count.clamp(min=1)
    return (loss, right.sum() / in_image.sum().clamp(min=1)) if with_accuracy else loss
