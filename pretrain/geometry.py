"""Windows in the query view, and where they lie in the key view.

A view of side S is the frame [0, S] x [0, S] of continuous pixels. A crop is `(left, top, right, bottom)` in the
frame of the image after the shared flip, so that a window goes from view to view by two affine maps,
R_K(R_Q^-1(window)), without a term for the flip.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.levels import Level

SLACK = 1e-4  # px; what float32 arithmetic may add to a box that ends exactly at the border


def _starts(view_size: int, window: int, stride: int) -> Tensor:
    """Starts k * stride with start + window < view_size: a window that ends at the border is left out [release]."""
    return torch.arange(0, max(view_size - window, 0), stride, dtype=torch.float32)


def windows(view_size: int, window: int, stride: int) -> Tensor:
    """The grid of square windows anchored at the view's corner.

    Args:
        view_size, window, stride: in pixels of the view.

    Returns:
        `(R, 4)` float32 boxes `(x0, y0, x1, y1)`, row by row: 36 for W48-S32 at 224.
    """
    starts = _starts(view_size, window, stride)
    y, x = torch.meshgrid(starts, starts, indexing="ij")
    corners = torch.stack((x, y), dim=-1).reshape(-1, 2)
    return torch.cat((corners, corners + window), dim=1)


def overlap_windows(query_crop: Tensor, key_crop: Tensor, view_size: int, window: int, stride: int) -> Tensor:
    """The same grid anchored at the corner of the crops' overlap, as the summary's words have it.

    Args:
        query_crop, key_crop: `(N, 4)`.

    Returns:
        `(N, R, 4)` boxes in the query view; those that leave it are found invalid by `correspond`.
    """
    overlap_corner = torch.maximum(query_crop[:, :2], key_crop[:, :2])
    extent = query_crop[:, 2:] - query_crop[:, :2]
    anchor = (overlap_corner - query_crop[:, :2]) / extent * view_size
    # A window may start up to view_size - window: one more column than the grid from the view's corner has.
    starts = torch.arange(0, view_size - window + SLACK, stride, dtype=torch.float32, device=query_crop.device)
    y, x = torch.meshgrid(starts, starts, indexing="ij")
    corners = anchor[:, None] + torch.stack((x, y), dim=-1).reshape(1, -1, 2)
    return torch.cat((corners, corners + window), dim=2)


def correspond(
    boxes: Tensor, query_crop: Tensor, key_crop: Tensor, view_size: int, border: str = "closed"
) -> tuple[Tensor, Tensor]:
    """Map boxes of the query view into the key view, for a whole batch.

    Args:
        boxes: `(R, 4)`, or `(N, R, 4)` where each image has its own, in pixels of the query view.
        query_crop, key_crop: `(N, 4)`, `(left, top, right, bottom)` in the frame of the flipped image.
        view_size: side of both views in pixels.
        border: `open` where a key box that ends at the right or lower border is not valid [release].

    Returns:
        `key_boxes (N, R, 4)` in pixels of the key view, and `valid (N, R)`: query and key box lie inside their
        views, [0, S] with 1e-4 px slack.
    """
    boxes = boxes.expand(len(query_crop), -1, 4)
    query_corner, key_corner = query_crop[:, None, :2].repeat(1, 1, 2), key_crop[:, None, :2].repeat(1, 1, 2)
    query_extent = (query_crop[:, 2:] - query_crop[:, :2])[:, None].repeat(1, 1, 2)
    key_extent = (key_crop[:, 2:] - key_crop[:, :2])[:, None].repeat(1, 1, 2)
    image_boxes = query_corner + boxes * (query_extent / view_size)
    key_boxes = (image_boxes - key_corner) * (view_size / key_extent)
    valid = _inside(boxes, view_size) & _inside(key_boxes, view_size)
    if border == "open":
        valid &= (key_boxes[..., 2:] < view_size).all(dim=-1)
    return key_boxes, valid


def _inside(boxes: Tensor, view_size: int) -> Tensor:
    return ((boxes >= -SLACK) & (boxes <= view_size + SLACK)).all(dim=-1)


class Windows(NamedTuple):
    """The windows of a batch of N pairs, R per view, for one level.

    Attributes:
        query_boxes, key_boxes: `(N, R, 4)` in pixels of their view.
        valid: `(N, R)` bool.
        rows: flat indices, into `(N * R)`, of the valid windows: one `(V,)` int64 tensor per batch-norm group.
            Found on the host, where the crops are drawn: a GPU that has to find them makes the host wait.
    """

    query_boxes: Tensor
    key_boxes: Tensor
    valid: Tensor
    rows: tuple[Tensor, ...]


def batch_windows(query_crop: Tensor, key_crop: Tensor, view_size: int, level: Level, group: int) -> Windows:
    """All windows of a batch for one level of a recipe, where they lie in the key view, and which of them count.

    Args:
        query_crop, key_crop: `(N, 4)`.
        level: a `pretrain.levels.Level`.
        group: images of a batch-norm group.
    """
    if level.anchor == "view":
        whole = torch.tensor([0.0, 0.0, view_size, view_size]).expand(len(query_crop), 1, 4)
        valid = torch.ones(len(query_crop), 1, dtype=torch.bool)
        return Windows(whole, whole, valid, valid_rows(valid, group))
    if level.anchor == "overlap":
        query_boxes = overlap_windows(query_crop, key_crop, view_size, level.window, level.stride)
    else:
        query_boxes = windows(view_size, level.window, level.stride)
    key_boxes, valid = correspond(query_boxes, query_crop, key_crop, view_size, level.border)
    return Windows(query_boxes.expand_as(key_boxes), key_boxes, valid, valid_rows(valid, group))


def permuted(regions: Tensor, valid: Tensor) -> Tensor:
    """The regions `(N, R, D)`, those of each image that are `valid (N, R)` in an order drawn at random."""
    noise = torch.rand(valid.shape, device=valid.device).masked_fill(~valid, 2)
    taken, place = noise.argsort(dim=1), (~valid).to(torch.uint8).argsort(dim=1, stable=True)  # valid ones come first
    order = torch.empty_like(taken).scatter_(1, place, taken)
    return regions.gather(1, order[..., None].expand_as(regions))


def valid_rows(valid: Tensor, group: int) -> tuple[Tensor, ...]:
    """`Windows.rows` of `valid (N, R)`; reads it on the host."""
    rows = valid.flatten().nonzero()[:, 0]
    return rows.split([int(part.sum()) for part in valid.split(group)])
