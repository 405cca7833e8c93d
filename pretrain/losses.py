"""The equations: the contrastive loss of a query, and what each window counts in the loss of a batch.

Nothing here knows of processes, of parts of a batch or of where its inputs come from: `pretrain.regions` does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**22  # logits that are alive at a time: 16 MB in float32


def info_nce(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    temperature: float,
    own: Tensor | None = None,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE of each query: -log of the share that its positive has in the softmax over it and the negatives.

    Args:
        query, positive: `(V, D)`, of unit length as all features here.
        negatives: `(M, D)`.
        temperature: tau.
        own: `(V,)`, where a query's positive stands among the negatives, of which it is none.
        counts: `(M,)` bool, which negatives there are; all where it is None.

    Returns:
        The losses `(V,)`, and whether the positive is the most similar `(V,)` bool.

    Source: He et al., "Momentum Contrast", equation (1); Xiao et al., "Region Similarity", the inner term of (2).
    """
    similar, others = (query * positive).sum(dim=1, keepdim=True), query @ negatives.T
    if own is not None:
        others = others.scatter(1, own[:, None], -torch.inf)
    if counts is not None:
        others = others.masked_fill(~counts, -torch.inf)
    logits = torch.cat((similar, others), dim=1) / temperature
    first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, first, reduction="none"), logits.detach().argmax(dim=1) == 0


def window_weights(valid: Tensor, reduction: str, group: int) -> Tensor:
    """What each window counts in the loss of a batch, the outer means of equation (2), but for a common divisor.

    Args:
        valid: `(N, R)` bool.
        reduction: `image` for the mean over an image's windows, then over images (the summary); `group` for the mean
            over a batch-norm group's windows, then over groups (the release); `window` for one mean over all windows.
        group: images of a batch-norm group.

    Returns:
        `(N, R)` float64, whose sum is how many images, groups or windows there are that have one.
    """
    weights, in_image = valid.double(), valid.sum(dim=1, keepdim=True)
    if reduction == "image":
        return weights / in_image.clamp(min=1)
    if reduction == "group":
        return weights / in_image.view(-1, group).sum(dim=1).clamp(min=1).repeat_interleave(group)[:, None]
    if reduction != "window":
        raise ValueError(f"reduction is 'image', 'window' or 'group', not {reduction!r}")
    return weights


class _InChunks(torch.autograd.Function):
    """`info_nce`, some queries at a time, with the gradient written out; no logits outlive their chunk.

    A query's loss depends on no other query and keys carry no gradient, so that a chunk's gradient follows from its
    softmax by one product and is taken at once, beside the losses: twice as fast as autograd through `info_nce`.
    """

    @staticmethod
    def forward(ctx, query, positive, negatives, temperature, own, counts):
        losses, right, gradient = query.new_empty(len(query)), query.new_empty(len(query)), torch.empty_like(query)
        rows = max(1, CHUNK // max(1, len(negatives)))
        for start in range(0, len(query), rows):
            part = slice(start, start + rows)
            similar = (query[part] * positive[part]).sum(dim=1, keepdim=True) / temperature
            others = (query[part] / temperature) @ negatives.T
            if own is not None:
                others.scatter_(1, own[part, None], -torch.inf)
            if counts is not None:
                others.masked_fill_(~counts, -torch.inf)
            highest = torch.maximum(similar, others.amax(dim=1, keepdim=True)) if len(negatives) else similar
            share, share_of_positive = others.sub_(highest).exp_(), (similar - highest).exp()
            total = share.sum(dim=1, keepdim=True) + share_of_positive
            losses[part] = (total.log() + highest - similar)[:, 0]
            right[part] = (similar == highest)[:, 0].to(right.dtype)
            mean = (share @ negatives + share_of_positive * positive[part]) / total
            gradient[part] = (mean - positive[part]) / temperature
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_losses, _):
        (gradient,) = ctx.saved_tensors
        return of_losses[:, None] * gradient, None, None, None, None, None


def info_nce_in_chunks(query, positive, negatives, temperature, own=None, counts=None) -> tuple[Tensor, Tensor]:
    """As `info_nce`, with at most `CHUNK` logits in memory; only the query has a gradient; `right` is a float."""
    return _InChunks.apply(query, positive, negatives, temperature, own, counts)
