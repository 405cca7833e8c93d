"""How fast and how small pooling and the dense region loss are, against the obvious versions."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from pretrain import geometry
from pretrain.bench.step import DEVICE
from pretrain.pooling import prroi_pool
from pretrain.regions import region_loss
from resim_bench.machine.timing import Comparison, compare, extra_memory, in_turn

TAU = 0.2
IMAGES = 4  # that are pooled from
# Stride, window and stride of the windows, channels and side of the map: C4 with W48-S32, P3 with W32-S24.
POOLING = {"36 windows on C4": (16, 48, 32, 128, 14), "64 windows on P3": (8, 32, 24, 256, 28)}
# Windows a view, negatives and whether each batch-norm group of 32 has its own, for a batch of 256 (the release).
DENSE = {"stride 16": (36, (256 * 144, 256)), "stride 8, groups of 32": (64, (8, 32 * 676, 256))}


def rows(pairs: int = 5) -> Iterator[Comparison]:
    """The rows of `resim-bench bench ops`, as they come."""
    torch.manual_seed(0)
    for what, sizes in POOLING.items():
        yield pooling_row(what, *sizes, pairs)
    for what, sizes in DENSE.items():
        yield from dense_rows(what, *sizes, pairs)


def pooling_row(what, map_stride, window, stride, channels, side, pairs) -> Comparison:
    """Forward and backward of Precise RoI pooling against one box after the other."""
    boxes = geometry.windows(224, window, stride).expand(IMAGES, -1, 4).to(DEVICE)
    features = torch.randn(IMAGES, channels, side, side, device=DEVICE, requires_grad=True)
    ours, reference = prroi_pool(features, boxes, map_stride), pool_each_box(features, boxes, map_stride)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)

    def work(pool):
        return lambda: pool(features, boxes, map_stride).sum().backward()

    rounds = in_turn(work(prroi_pool), work(pool_each_box), pairs)
    return compare(f"pooling, {what}, forward and backward", rounds, at_least=10)


def pool_each_box(features, boxes, stride):
    """The mean of the bilinear interpolant over each box, its integral written out for one box at a time."""
    cells = [torch.arange(size, device=features.device) for size in features.shape[:1:-1]]

    def hat_integral(t):
        t = t.clamp(-1, 1)
        return t - 0.5 * t * t.abs()

    pooled = []
    for image, image_boxes in zip(features, boxes / stride, strict=True):
        for x0, y0, x1, y1 in image_boxes:
            x = (hat_integral(x1 - cells[0]) - hat_integral(x0 - cells[0])) / (x1 - x0)
            y = (hat_integral(y1 - cells[1]) - hat_integral(y0 - cells[1])) / (y1 - y0)
            pooled.append((image @ x) @ y)
    return torch.stack(pooled).view(*boxes.shape[:2], -1)


def dense_rows(what, windows, negatives, pairs) -> Iterator[Comparison]:
    """Time and memory of the dense region loss, forward and backward, against logits that are there all at once."""
    query = torch.randn(256, windows, negatives[-1], device=DEVICE, requires_grad=True)
    key, negatives = torch.randn_like(query), torch.randn(negatives, device=DEVICE)
    valid = torch.rand(256, windows, device=DEVICE) < 0.56  # as of pairs of 500 x 375 photographs
    rows_of_groups = geometry.valid_rows(valid, 32)

    def ours():
        return region_loss(query, key, valid, TAU, negatives, "window", rows_of_groups)[0]

    def reference():
        return materialised(query, key, valid, negatives if negatives.dim() == 3 else negatives[None])

    torch.testing.assert_close(ours(), reference(), rtol=1e-4, atol=1e-4)
    works = [lambda: ours().backward(), lambda: reference().backward()]
    memory = [extra_memory(work) / 1e6 for work in works]
    what = f"dense loss, batch 256, {what}"
    yield compare(f"{what}: memory", [tuple(memory)], unit="MB", at_least=8)
    yield compare(f"{what}: time", in_turn(*works, pairs), at_least=1)


def materialised(query, key, valid, groups):
    """Cross-entropy over the logits of all windows of a group with its negatives."""
    losses = []
    parts = (tensor.chunk(len(groups)) for tensor in (query, key, valid))
    for q, k, windows, negatives in zip(*parts, groups, strict=True):
        q, k, negatives = F.normalize(q[windows], dim=1), F.normalize(k[windows], dim=1), F.normalize(negatives, dim=1)
        logits = torch.cat(((q * k).sum(dim=1, keepdim=True), q @ negatives.T), dim=1) / TAU
        target = torch.zeros(len(q), dtype=torch.long, device=q.device)
        losses.append(F.cross_entropy(logits, target, reduction="sum"))
    return sum(losses) / valid.sum()
