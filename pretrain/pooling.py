"""Precise RoI pooling to 1 x 1: the exact mean over a box of the bilinearly interpolated feature map.

A feature cell i sits at coordinate i, boxes are divided by the stride, and outside the map the value is 0. The
interpolant is a sum of products of hat functions, so the mean over a box is separable: cell i has the weight
(F(b - i) - F(a - i)) / (b - a) for the interval [a, b], with F the integral of the hat max(0, 1 - |t|).
"""

import torch
from torch import Tensor


def _hat_integral(t: Tensor) -> Tensor:
    """F(t): the integral of max(0, 1 - |s|) from -1 to t."""
    t = t.clamp(-1, 1)
    return 0.5 + t - 0.5 * t * t.abs()


def _interval_weights(start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Weights `(..., cells)` of the cells in the mean over [start, end]; an empty interval weighs nothing."""
    cell = torch.arange(cells, dtype=start.dtype, device=start.device)
    integral = _hat_integral(end[..., None] - cell) - _hat_integral(start[..., None] - cell)
    length = (end - start)[..., None]
    return torch.where(length > 0, integral / length.clamp(min=1e-6), 0)


def prroi_pool(features: Tensor, boxes: Tensor, stride: float) -> Tensor:
    """Mean of each image's feature map over each of its boxes; differentiable in `features`.

    Args:
        features: `(N, C, H, W)`, any float type.
        boxes: `(N, R, 4)` as `(x0, y0, x1, y1)` in pixels of the view.
        stride: pixels a feature cell.

    Returns:
        `(N, R, C)` of the type of `features`.

    Source: Jiang et al., "Acquisition of Localization Confidence for Accurate Object Detection", section 3.3.
    """
    height, width = features.shape[-2:]
    # The weights of a box need more digits than bf16 has; the sum over cells is as precise as the features.
    precision = torch.promote_types(torch.promote_types(features.dtype, boxes.dtype), torch.float32)
    boxes = boxes.to(precision) / stride
    x = _interval_weights(boxes[..., 0], boxes[..., 2], width)
    y = _interval_weights(boxes[..., 1], boxes[..., 3], height)
    weights = (y[..., :, None] * x[..., None, :]).flatten(2)
    return weights.to(features.dtype) @ features.flatten(2).transpose(1, 2)
