"""The region loss of a batch: which windows are compared with which, over groups, processes and parts of a batch.

In several processes the keys of all are negatives and the divisors count the windows of all; the mean of the value over
processes (which is what DistributedDataParallel takes of gradients) is then the loss of one process with the whole
batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.distributed import all_gather, all_reduce_sum, rank, world_size
from pretrain.geometry import valid_rows
from pretrain.losses import info_nce_in_chunks, window_weights


def region_loss(
    query: Tensor,
    key: Tensor,
    valid: Tensor,
    temperature: float,
    negatives: Tensor | None = None,
    reduction: str = "image",
    rows: tuple[Tensor, ...] | None = None,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Region similarity loss, equation (2) with the -log that the print leaves out.

    The positive of window i is the same window in the key view; its negatives are all other valid windows of the
    batch in the key views, of the same image and of the others, or what is given.

    Args:
        query, key: `(N, R, D)` pooled features; keys carry no gradient.
        valid: `(N, R)` bool; other windows change neither value nor gradient.
        temperature: tau of equation (1).
        negatives: the release's, see `dense_negatives`: `(M, D)`; or `(G, M, D)`, where each of G equal groups of
            images has its own, as the images of one GPU have in the release.
        reduction: of `pretrain.losses.window_weights`.
        rows: of `valid`, see `pretrain.geometry.Windows`; without them the host waits until `valid` is known.
        first: `query` may be that of some batch-norm groups only, `(n, R, D)` from this image of the batch on; the
            result is their share, and the shares of all parts add up to the whole.

    Returns:
        The loss, 0 when no window is valid; and the share of valid windows whose own key is the most similar.
    """
    if rows is None:
        groups = len(negatives) if negatives is not None and negatives.dim() == 3 else 1
        rows = valid_rows(valid, len(valid) // groups)
    group = len(valid) // len(rows)
    part = slice(first // group, (first + len(query)) // group)
    here = torch.cat(rows[part])
    query = F.normalize(_at(query, here - first * valid.shape[1]), dim=1)
    positive = F.normalize(_at(key, here), dim=1).detach()
    if negatives is None:
        losses, right = _against_windows(query, positive, key, valid, temperature, rows, here, part)
    elif negatives.dim() == 2:
        losses, right = info_nce_in_chunks(query, positive, F.normalize(negatives.detach(), dim=1), temperature)
    else:
        sizes = [len(of_group) for of_group in rows[part]]
        groups = zip(query.split(sizes), positive.split(sizes), negatives[part].detach(), strict=True)
        found = [info_nce_in_chunks(q, k, F.normalize(n, dim=1), temperature) for q, k, n in groups]
        losses, right = map(torch.cat, zip(*found, strict=True))
    weights = window_weights(valid, reduction, group)
    totals, scale = torch.stack((weights.sum(), valid.sum().to(weights.dtype))), 1
    if world_size() > 1:
        totals, scale = all_reduce_sum(totals), world_size()
    total, windows = totals.clamp(min=1)
    shares = (weights * scale / total).flatten()[here].to(losses.dtype)
    return (losses * shares).sum(), scale * right.sum() / windows


def _against_windows(query, positive, key, valid, temperature, rows, here, part):
    """Losses of queries whose negatives are the valid windows of all processes."""
    if world_size() > 1:
        # How many windows count in other processes is not known here: theirs are masked, not left out.
        keys, counts = all_gather(F.normalize(key, dim=2).detach()).flatten(0, 1), all_gather(valid).flatten()
        return info_nce_in_chunks(query, positive, keys, temperature, rank() * valid.numel() + here, counts)
    keys = F.normalize(_at(key, torch.cat(rows)), dim=1).detach()
    own = sum(map(len, rows[: part.start])) + torch.arange(len(here), device=here.device)
    return info_nce_in_chunks(query, positive, keys, temperature, own)


def dense_negatives(key_map: Tensor) -> Tensor:
    """Every position of the key map after 3 x 3 average pooling without padding: `(N, D, H, W)` to `(M, D)`."""
    pooled = F.avg_pool2d(key_map, kernel_size=3, stride=1)
    return pooled.permute(0, 2, 3, 1).reshape(-1, key_map.shape[1])


def _at(pooled, rows) -> Tensor:
    """`(N, R, D)` at these rows of the flattened `(N * R)`: `(V, D)`."""
    return pooled.flatten(0, 1).index_select(0, rows)
