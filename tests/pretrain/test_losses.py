"""The losses against triple loops, and what they promise of invalid windows."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain import losses
from pretrain.geometry import valid_rows
from pretrain.losses import info_nce, window_weights
from pretrain.regions import dense_negatives, region_loss
from tests.references import regions

TAU = 0.2


def of_windows(query, key, valid, reduction="image", **options):
    """The loss alone, against the windows."""
    return region_loss(query, key, valid, TAU, None, reduction, **options)[0]


def of_dense(query, key, valid, negatives, reduction="window", **options):
    """The loss alone, against given negatives."""
    return region_loss(query, key, valid, TAU, negatives, reduction, **options)[0]


def random_case(seed=0):
    rng = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 4, 5, 6, generator=rng, dtype=torch.float64)
    valid = torch.rand(4, 5, generator=rng) < 0.6
    valid[2] = False  # an image without any
    return query, key, valid, torch.randn(11, 6, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reduction", ["image", "window"])
def test_region_loss_equals_the_loops(reduction, seed):
    query, key, valid, _ = random_case(seed)
    expected = regions.region_info_nce(query, key, valid, TAU, reduction)
    assert of_windows(query, key, valid, reduction).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reduction", ["image", "window"])
@pytest.mark.parametrize("groups", [1, 2])
def test_dense_loss_equals_the_loops(reduction, groups, seed):
    query, key, valid, negatives = random_case(seed)
    if groups == 2:
        negatives = torch.stack((negatives, negatives.flip(1)))
    expected = regions.dense_info_nce(query, key, valid, negatives, TAU, reduction)
    assert of_dense(query, key, valid, negatives, reduction).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", ["region_info_nce", "dense_info_nce"])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_a_mean_by_group_equals_the_loops(loss, group, seed):
    """As the release has it: a mean over the windows of a GPU, then over the GPUs."""
    query, key, valid, negatives = random_case(seed)
    more = (negatives,) if loss == "dense_info_nce" else ()
    expected = getattr(regions, loss)(query, key, valid, *more, TAU, "group", group)
    ours = of_dense if more else of_windows
    found = ours(query, key, valid, *more, "group", rows=valid_rows(valid, group))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_reductions_differ():
    query, key, valid, negatives = random_case()
    for loss, more in ((of_windows, ()), (of_dense, (negatives,))):
        by_image, by_window = (loss(query, key, valid, *more, reduction=kind) for kind in ("image", "window"))
        assert by_image != by_window
    with pytest.raises(ValueError, match="reduction is 'image', 'window' or 'group', not 'mean'"):
        window_weights(valid, "mean", 1)


@pytest.mark.parametrize("loss", [of_windows, of_dense])
def test_invalid_windows_change_neither_value_nor_gradient(loss):
    query, key, valid, negatives = random_case()
    extra = (negatives,) if loss is of_dense else ()
    results = []
    for garbage in (0.0, 1e3):
        q = torch.where(valid[..., None], query, query + garbage).requires_grad_()
        k = torch.where(valid[..., None], key, key - garbage)
        value = loss(q, k, valid, *extra)
        value.backward()
        results.append((value.detach(), q.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not results[0][1][~valid].any() and results[0][1][valid].any()


@pytest.mark.parametrize("reduction", ["image", "window"])
def test_no_valid_window_costs_nothing(reduction):
    query, key, valid, negatives = random_case()
    query.requires_grad_()
    none = torch.zeros_like(valid)
    for value in (
        of_windows(query, key, none, reduction),
        of_dense(query, key, none, negatives, reduction),
    ):
        query.grad = None
        value.backward()
        assert value.item() == 0
        assert torch.equal(query.grad, torch.zeros_like(query))


def test_gradients_of_the_query():
    query, key, valid, negatives = random_case()
    query.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: of_windows(q, key, valid), query)
    assert torch.autograd.gradcheck(lambda q: of_dense(q, key, valid, negatives), query)


@pytest.mark.parametrize("chunk", [1, 25, 50])
@pytest.mark.parametrize("kind", ["windows", "dense"])
def test_chunks_change_nothing(kind, chunk, monkeypatch):
    query, key, valid, negatives = random_case()
    negatives = negatives if kind == "dense" else None
    query.requires_grad_()
    results = []
    for size in (losses.CHUNK, chunk):
        monkeypatch.setattr(losses, "CHUNK", size)
        value, accuracy = region_loss(query, key, valid, TAU, negatives)
        results.append((value.detach(), accuracy, torch.autograd.grad(value, query)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-13, atol=1e-15)
    assert torch.autograd.gradcheck(lambda q: region_loss(q, key, valid, TAU, negatives)[0], query)


@pytest.mark.parametrize("with_own", [False, True])
@pytest.mark.parametrize("with_counts", [False, True])
def test_chunks_are_the_equation_and_its_gradient(with_own, with_counts, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", 40)
    rng = torch.Generator().manual_seed(1)
    query, positive = F.normalize(torch.randn(2, 9, 6, generator=rng, dtype=torch.float64), dim=2)
    negatives = F.normalize(torch.randn(13, 6, generator=rng, dtype=torch.float64), dim=1)
    own = torch.arange(9) if with_own else None
    counts = torch.rand(13, generator=rng) < 0.5 if with_counts else None
    found = []
    for function in (info_nce, losses.info_nce_in_chunks):
        of = query.clone().requires_grad_()
        value, right = function(of, positive, negatives, TAU, own, counts)
        (value * torch.arange(9)).sum().backward()
        found.append((value.detach(), right.double(), of.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-13)


class Largest(TorchDispatchMode):
    """The number of values of the largest tensor that any operation makes."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_dense_logits_are_never_whole(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", 20_000)
    query, negatives = torch.randn(2, 50, 8, requires_grad=True), torch.randn(1500, 8)
    valid = torch.ones(2, 50, dtype=torch.bool)
    with Largest() as largest:
        of_dense(query, query.detach(), valid, negatives).backward()
    assert 12_000 <= largest.values <= 20_000, "100 windows x 1,500 negatives are 150,000 logits"


def test_logits_of_windows_are_never_whole(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", 20_000)
    query = torch.randn(10, 50, 8, requires_grad=True)
    with Largest() as largest:
        of_windows(query, query.detach(), torch.ones(10, 50, dtype=torch.bool)).backward()
    assert 12_000 <= largest.values <= 20_000, "500 windows have 250,000 logits"


def test_dense_accuracy_counts_the_windows_whose_own_key_is_nearest():
    _, key, valid, negatives = random_case()
    stolen = negatives.clone()
    stolen[3] = 2 * key[tuple(valid.nonzero()[0])] + 1e-3  # nearer to the window's query than its key, which is off
    query = key.clone()
    query[tuple(valid.nonzero()[0])] = stolen[3]
    _, accuracy = region_loss(query, key, valid, TAU, stolen)
    assert accuracy.item() == pytest.approx(1 - 1 / valid.sum().item())


def test_keys_carry_no_gradient():
    query, key, valid, negatives = random_case()
    for tensor in (query, key, negatives):
        tensor.requires_grad_()
    of_windows(query, key, valid).backward()
    of_dense(query, key, valid, negatives).backward()
    assert key.grad is None and negatives.grad is None and query.grad is not None


def test_one_window_alone_has_no_negatives_and_no_loss():
    query, key, valid, _ = random_case()
    valid[:] = False
    valid[1, 1] = True
    assert of_windows(query, key, valid).item() == pytest.approx(0, abs=1e-12)


def test_accuracy_counts_the_valid_windows():
    _, key, valid, _ = random_case()
    swapped = key.clone()
    first, second = valid.nonzero()[:2].tolist()
    swapped[tuple(first)], swapped[tuple(second)] = key[tuple(second)], key[tuple(first)]
    _, accuracy = region_loss(swapped, key, valid, TAU)
    assert accuracy.item() == pytest.approx(1 - 2 / valid.sum().item())


def test_of_an_embedding_and_a_queue():
    rng = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
    queue = F.normalize(torch.randn(7, 4, generator=rng, dtype=torch.float64), dim=1)
    expected = 0.0
    for q, k in zip(query, key, strict=True):
        q, k = q / q.norm(), k / k.norm()
        positive = math.exp(float(q @ k) / TAU)
        expected -= math.log(positive / (positive + sum(math.exp(float(q @ n) / TAU) for n in queue))) / 3
    found, _ = info_nce(F.normalize(query, dim=1), F.normalize(key, dim=1), queue, TAU)
    assert found.mean().item() == pytest.approx(expected, rel=1e-12)


def test_dense_negatives_are_the_positions_of_the_pooled_map():
    key_map = torch.arange(2 * 3 * 5 * 6, dtype=torch.float32).reshape(2, 3, 5, 6)
    negatives = dense_negatives(key_map)
    assert negatives.shape == (2 * 3 * 4, 3)
    assert torch.allclose(negatives[1], key_map[0, :, 0:3, 1:4].mean(dim=(1, 2)))
    assert len(dense_negatives(torch.zeros(1, 1, 14, 14))) == 144
    assert len(dense_negatives(torch.zeros(1, 1, 28, 28))) == 676
