"""Slow, obvious twins of the region code: one box, one window, one logit at a time."""

import math

import torch


def correspond(box, query_crop, key_crop, view_size):
    """Map one box: query view -> image -> key view; all arguments are lists of floats."""
    result = []
    for i, value in enumerate(box):
        axis = i % 2
        query_extent = query_crop[axis + 2] - query_crop[axis]
        key_extent = key_crop[axis + 2] - key_crop[axis]
        image = query_crop[axis] + value / view_size * query_extent
        result.append((image - key_crop[axis]) / key_extent * view_size)
    return result


def interpolated(feature, x, y):
    """The bilinear interpolant of `(H, W)` at a point; cells sit at integers, outside is 0."""
    value = 0.0
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            if 0 <= j < feature.shape[0] and 0 <= i < feature.shape[1]:
                value += max(0, 1 - abs(x - i)) * max(0, 1 - abs(y - j)) * float(feature[j, i])
    return value


def pooled(feature, box, stride, steps=400):
    """Mean of the interpolant over a box by the midpoint rule."""
    x0, y0, x1, y1 = (float(v) / stride for v in box)
    points = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    # The interpolant is a sum of products of hats, so each axis is integrated on its own.
    total = 0.0
    for j in range(feature.shape[0]):
        in_y = (1 - (y0 + points * (y1 - y0) - j).abs()).clamp(min=0).mean()
        for i in range(feature.shape[1]):
            in_x = (1 - (x0 + points * (x1 - x0) - i).abs()).clamp(min=0).mean()
            total += float(in_x * in_y) * float(feature[j, i])
    return total


def _similarity(a, b, temperature):
    a, b = a / a.norm(), b / b.norm()
    return float((a * b).sum()) / temperature


def _loss(positive, others):
    return -math.log(math.exp(positive) / (math.exp(positive) + sum(math.exp(o) for o in others)))


def _mean(losses, reduction, group=None):
    """`losses[n]` is the list of an image's losses; `group` images share a GPU."""
    if reduction == "group":
        gpus = [sum(losses[first : first + group], []) for first in range(0, len(losses), group)]
        return _mean(gpus, "image")
    losses = [image for image in losses if image]
    if not losses:
        return 0.0
    if reduction == "image":
        return sum(sum(image) / len(image) for image in losses) / len(losses)
    return sum(sum(image) for image in losses) / sum(len(image) for image in losses)


def region_info_nce(query, key, valid, temperature, reduction, group=None):
    """Equation (2): three loops, over images, their windows, and all other valid windows."""
    losses = []
    for n in range(len(query)):
        image = []
        for i in range(query.shape[1]):
            if not valid[n, i]:
                continue
            others = [
                _similarity(query[n, i], key[m, j], temperature)
                for m in range(len(key))
                for j in range(key.shape[1])
                if valid[m, j] and (m, j) != (n, i)
            ]
            image.append(_loss(_similarity(query[n, i], key[n, i], temperature), others))
        losses.append(image)
    return _mean(losses, reduction, group)


def dense_info_nce(query, key, valid, negatives, temperature, reduction, group=None):
    """The release's variant: three loops, over images, their windows, and the negatives of their group."""
    negatives = negatives if negatives.dim() == 3 else negatives[None]
    per_group = len(query) // len(negatives)
    losses = []
    for n in range(len(query)):
        image = []
        for i in range(query.shape[1]):
            if valid[n, i]:
                others = [_similarity(query[n, i], k, temperature) for k in negatives[n // per_group]]
                image.append(_loss(_similarity(query[n, i], key[n, i], temperature), others))
        losses.append(image)
    return _mean(losses, reduction, group)
