"""Precise RoI pooling against a numerical integral."""

import pytest
import torch

from pretrain.pooling import prroi_pool
from tests.references import regions


def random_case(dtype=torch.float64, boxes_beyond=False):
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 6, 7, generator=rng, dtype=dtype)
    low, high = (-20, 130) if boxes_beyond else (0, 60)
    corner = low + (high - low) * torch.rand(2, 5, 2, generator=rng, dtype=torch.float64)
    size = 1 + 50 * torch.rand(2, 5, 2, generator=rng, dtype=torch.float64)
    return features, torch.cat((corner, corner + size), dim=2)


@pytest.mark.parametrize("boxes_beyond", [False, True])
def test_equals_the_numerical_integral(boxes_beyond):
    features, boxes = random_case(boxes_beyond=boxes_beyond)
    pooled = prroi_pool(features, boxes, stride=16)
    assert pooled.shape == (2, 5, 3)
    for n in range(2):
        for r in range(5):
            for c in range(3):
                assert pooled[n, r, c].item() == pytest.approx(
                    regions.pooled(features[n, c], boxes[n, r], 16), abs=2e-4
                )


def test_the_twin_interpolates():
    """The twin's separable midpoint rule against its own point-wise interpolant."""
    features, boxes = random_case()
    x0, y0, x1, y1 = (boxes[0, 0] / 16).tolist()
    steps = 60
    points = [
        regions.interpolated(features[0, 0], x0 + (i + 0.5) / steps * (x1 - x0), y0 + (j + 0.5) / steps * (y1 - y0))
        for i in range(steps)
        for j in range(steps)
    ]
    assert sum(points) / steps**2 == pytest.approx(regions.pooled(features[0, 0], boxes[0, 0], 16), abs=1e-3)


def test_the_worked_example():
    """[0, 48] px at stride 16 is [0, 3]: cells weigh 1/6, 1/3, 1/3, 1/6."""
    features = torch.eye(4, dtype=torch.float64).reshape(1, 4, 1, 4)  # channel i is 1 at cell i
    box = torch.tensor([[[0.0, -16, 48, 16]]])  # in y: the whole hat of the only row, half of the box
    assert (2 * prroi_pool(features, box, 16)).flatten().tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6])


def test_gradients():
    features, boxes = random_case(boxes_beyond=True)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: prroi_pool(f, boxes, 16), features)


def test_a_constant_map_inside_gives_the_constant():
    boxes = torch.tensor([[[3.0, 4.0, 40.0, 41.0]]])
    assert prroi_pool(torch.full((1, 1, 8, 8), 2.5), boxes, 8).item() == pytest.approx(2.5)


def test_an_empty_box_gives_zero_and_finite_gradients():
    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    pooled = prroi_pool(features, torch.tensor([[[5.0, 5, 5, 9], [9, 9, 1, 1]]]), 8)
    pooled.sum().backward()
    assert torch.equal(pooled, torch.zeros(1, 2, 2))
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_float_type(dtype):
    features, boxes = random_case()
    pooled = prroi_pool(features.to(dtype), boxes.float(), 16)
    assert pooled.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert torch.allclose(pooled.double(), prroi_pool(features, boxes, 16), atol=tolerance)
