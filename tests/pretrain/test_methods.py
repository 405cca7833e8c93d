"""MoCo-v2 written out as one plain step, and ReSim's instance branch beside it, bit for bit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from torch import nn

from pretrain.encoders import resnet, trunk_maps
from pretrain.train import FUSED
from pretrain.views import MEAN, STD, normalise
from resim_bench.harness.precision import Bfloat16OptimWrapper
from tests.host_reads import HostReads
from tests.pretrain.helpers import LEVEL, PYRAMID, tiny_batch, tiny_moco

STEPS = 3


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)


def embed(encoder, x):
    t = encoder.trunk
    x = t.layer1(t.maxpool(t.relu(t.bn1(t.conv1(x)))))
    return encoder.head(t.layer4(t.layer3(t.layer2(x))).mean(dim=(2, 3)))


def plain_moco_step(encoder_q, encoder_k, queue, optimizer, query, key):
    """MoCo-v2's algorithm 1 for a batch that is one batch-norm group; returns the loss and the new queue."""
    q = F.normalize(embed(encoder_q, normalise(query)), dim=1)
    with torch.no_grad():
        for pk, pq in zip(encoder_k.parameters(), encoder_q.parameters(), strict=True):
            pk.mul_(0.9).add_(pq, alpha=1 - 0.9)
        order = torch.randperm(len(key))
        shuffled = embed(encoder_k, normalise(key)[order])
        k = F.normalize(shuffled[order.argsort()], dim=1)
    logits = torch.cat(((q * k).sum(dim=1, keepdim=True), q @ queue.T), dim=1) / 0.2
    loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), torch.cat((k, queue[: -len(k)]))


def test_without_levels_it_is_a_plain_moco_step():
    model = tiny_moco(bn_group=8)
    encoder_q, encoder_k = copy.deepcopy(model.encoder_q), copy.deepcopy(model.encoder_k)
    queue, optimizer, plain = model.queue.clone(), sgd(model.encoder_q.parameters()), sgd(encoder_q.parameters())
    for step in range(STEPS):
        batch = tiny_batch(seed=step)
        torch.manual_seed(step)
        expected, queue = plain_moco_step(encoder_q, encoder_k, queue, plain, batch["query"], batch["key"])
        torch.manual_seed(step)
        loss = model(**batch)["loss_instance"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # a mean in another order
    for ours, theirs in ((model.encoder_q, encoder_q), (model.encoder_k, encoder_k)):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name
    assert torch.equal(model.queue, queue)


@pytest.mark.parametrize("levels", [{"c4": LEVEL}, PYRAMID])
def test_levels_leave_the_instance_branch_as_it_is(levels):
    """The same trunk, head, queue and views: the instance loss and its gradient are MoCo-v2's, bit for bit."""
    moco, resim = tiny_moco(), tiny_moco(levels)
    torch.manual_seed(5)
    plain = moco(**tiny_batch())
    torch.manual_seed(5)
    with_levels = resim(**tiny_batch(levels))
    assert torch.equal(plain["loss_instance"], with_levels["loss_instance"])
    assert all(with_levels[f"loss_{source}"] > 0 and with_levels[f"windows_{source}"] > 0 for source in levels)
    plain["loss_instance"].backward()
    with_levels["loss_instance"].backward()
    for name, parameter in moco.encoder_q.named_parameters():
        assert torch.equal(dict(resim.encoder_q.named_parameters())[name].grad, parameter.grad), name
    assert torch.equal(moco.queue, resim.queue)


def test_permuting_changes_whom_a_window_is_compared_with_and_nothing_else():
    results, queues = [], []
    for positives in ("same", "permuted"):
        levels = {"c4": LEVEL | {"window": 8, "stride": 4, "positives": positives}}
        model = tiny_moco(levels)
        results.append(model(**tiny_batch(levels)))
        queues.append(model.queue)
    plain, permuted = results
    assert torch.equal(plain["loss_instance"], permuted["loss_instance"]) and torch.equal(*queues)
    assert torch.equal(plain["windows_c4"], permuted["windows_c4"])
    assert permuted["loss_c4"] > plain["loss_c4"], "an untrained network, too, knows a place again"


def test_the_total_weighs_the_instance_loss():
    losses = []
    for weight in (1.0, 0.5):
        torch.manual_seed(5)
        losses.append(tiny_moco(instance_weight=weight)(**tiny_batch())["loss_instance"])
    assert losses[1].item() == pytest.approx(0.5 * losses[0].item())


CHANGES = [
    {},
    {"anchor": "overlap"},
    {"negatives": "dense"},
    {"negatives": "dense-group"},
    {"positives": "permuted"},
    {"anchor": "view"},
    {"head": "conv1x1"},
    {"head": "mlp"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_every_kind_of_level_trains_trunk_and_head(changes):
    levels = {"c4": LEVEL | changes}
    model = tiny_moco(levels)
    model(**tiny_batch(levels))["loss_c4"].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.encoder_q.region_heads["c4"].parameters())
    assert model.encoder_q.trunk.conv1.weight.grad.abs().sum() > 0
    assert model.encoder_q.trunk.layer4[0].conv1.weight.grad is None, "C5 lies above the level"
    assert all(p.grad is None for p in model.encoder_k.parameters())


KINDS = {
    "moco": {},
    "windows": {"c4": LEVEL},
    "by-window": {"c4": LEVEL | {"reduction": "window", "anchor": "overlap"}},
    "dense": {"c4": LEVEL | {"negatives": "dense", "reduction": "window"}},
    "dense-group": {"c4": LEVEL | {"negatives": "dense-group"}},
    "fpn": PYRAMID,
    "permuted": {"c4": LEVEL | {"positives": "permuted"}},
}


def trained(levels, micro_batch, steps=2):
    """State and logs after some steps in double precision."""
    model = tiny_moco(levels, micro_batch=micro_batch).double()
    wrapper = OptimWrapper(sgd(model.encoder_q.parameters()))
    logs = []
    for step in range(steps):
        torch.manual_seed(step)
        logs.append(model.train_step(tiny_batch(levels, seed=step, images=12), wrapper))
    return model.state_dict(), logs


@pytest.mark.parametrize("kind", ["by-window", "dense", "dense-group", "fpn"])
def test_micro_batches_train_as_the_whole_batch_does(kind):
    (whole, logs), (parts, logs_of_parts) = (trained(KINDS[kind], micro_batch) for micro_batch in (None, 8))
    torch.testing.assert_close(parts, whole, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(logs_of_parts, logs, rtol=1e-6, atol=1e-7)  # counts of windows are float32


def test_micro_batches_are_encoded_one_at_a_time(monkeypatch):
    model, encoded = tiny_moco(micro_batch=8), []
    compare = model._compare
    monkeypatch.setattr(model, "_compare", lambda query, *rest: encoded.append(len(query)) or compare(query, *rest))
    model.train_step(tiny_batch(images=12), OptimWrapper(sgd(model.encoder_q.parameters())))
    assert encoded == [8, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_step_is_read_by_the_host(kind):
    model, batch = tiny_moco(KINDS[kind]), tiny_batch(KINDS[kind])
    optimizer = sgd(model.encoder_q.parameters())
    with HostReads() as reads:
        results = model(**batch)
        sum(value for name, value in results.items() if name.startswith("loss")).backward()
        optimizer.step()
    assert reads.found == []
    with HostReads() as reads:
        results["loss_instance"].item()
    assert reads.found, "the mode sees reads"


def test_bfloat16_follows_the_losses_of_float32():
    """A bfloat16 has three digits, so has its loss curve."""
    levels, curves = {"c4": LEVEL}, []
    for wrapper_class in (OptimWrapper, Bfloat16OptimWrapper):
        model = tiny_moco(levels)
        wrapper = wrapper_class(sgd(model.encoder_q.parameters()))
        curve = []
        for step in range(4):
            torch.manual_seed(step)
            curve.append(model.train_step(tiny_batch(levels, seed=step, images=16), wrapper)["loss"].item())
        curves.append(curve)
    assert curves[0] != curves[1], "bfloat16 has been used"
    assert curves[1] == pytest.approx(curves[0], rel=0.01)


def test_fused_sgd_takes_the_same_steps():
    states = []
    for options in ({}, FUSED):
        torch.manual_seed(0)
        model = torch.nn.Linear(40, 30)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4, **options)
        for step in range(5):
            optimizer.zero_grad()
            (model(torch.full((4, 40), 0.1 * step)) ** 2).sum().backward()
            optimizer.step()
        states.append(model.state_dict())
    torch.testing.assert_close(states[1], states[0], rtol=1e-6, atol=1e-7)


def test_the_key_encoder_follows_by_momentum():
    model = tiny_moco(momentum=0.75)
    with torch.no_grad():
        for p in model.encoder_q.parameters():
            p.add_(1)
    before = [p.clone() for p in model.encoder_k.parameters()]
    model(**tiny_batch())
    for old, new in zip(before, model.encoder_k.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-5)


def test_shuffled_keys_come_back_in_order():
    model = tiny_moco()
    model.encoder_k.eval()  # statistics do not depend on the group, so the order alone can differ
    images = tiny_batch()["key"]
    embedding, _ = model._encode_keys(images)
    assert torch.allclose(embedding, model.encoder_k(normalise(images))[0], atol=1e-5)


def test_keys_are_shuffled_between_batch_norm_groups():
    images = tiny_batch()["key"]
    model = tiny_moco()
    torch.manual_seed(0)
    again = model._encode_keys(images)[0]
    torch.manual_seed(1)
    assert not torch.allclose(model._encode_keys(images)[0], again, atol=1e-3)


def test_the_queue_takes_the_newest_first():
    model = tiny_moco()
    oldest = model.queue.clone()
    model(**tiny_batch())
    assert torch.equal(model.queue[8:], oldest[:-8])
    assert torch.allclose(model.queue[:8].norm(dim=1), torch.ones(8))


def test_the_trunk_is_torchvision_s():
    import torchvision

    ours = resnet(50).double()  # float32 rounds one way or the other, by the layout in memory
    theirs = torchvision.models.resnet50().double()
    theirs.fc = nn.Identity()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    maps = trunk_maps(ours.eval(), x)
    assert maps["c4"].shape == (1, 1024, 4, 4) and maps["c5"].shape == (1, 2048, 2, 2)
    torch.testing.assert_close(maps["c5"].mean(dim=(2, 3)), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_smaller_strides_keep_the_maps_large():
    assert trunk_maps(resnet(18, (1, 1, 2, 2)), torch.randn(2, 3, 80, 80))["c4"].shape[-2:] == (10, 10)
    assert trunk_maps(resnet(50, (1, 1, 2, 2)), torch.randn(2, 3, 64, 64))["c4"].shape[-2:] == (8, 8)


def test_normalise():
    images = torch.zeros(1, 1, 2, 3, dtype=torch.uint8)
    images[:, :, 1] = 255
    expected = torch.tensor([[(v - m) / s for v in (0, 255)] for m, s in zip(MEAN, STD, strict=True)])
    assert torch.allclose(normalise(images)[0, :, 0], expected)
