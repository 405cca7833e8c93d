"""DenseCL against loops over cells, its two queues, and what it shares with MoCo-v2."""

import math

import pytest
import torch
from mmengine.optim import OptimWrapper

from pretrain import train
from resim_bench.errors import UserError
from resim_bench.harness import runs
from tests.pretrain.helpers import TAU, tiny_batch, tiny_densecl, tiny_moco


def cosine(a, b):
    return float((a @ b / (a.norm() * b.norm())).detach())


def of_loops(query_maps, key_maps, queue):
    """The cells' loss: for each image and cell of the query view, its match, then one softmax."""
    losses, matches = [], []
    for n in range(len(query_maps["c5"])):
        (query_c5, key_c5), (query, key) = (
            [maps[name][n].flatten(1).T for maps in (query_maps, key_maps)] for name in ("c5", "dense")
        )
        for cell in range(len(query_c5)):
            match = max(range(len(key_c5)), key=lambda other: cosine(query_c5[cell], key_c5[other]))
            positive = math.exp(cosine(query[cell], key[match]) / TAU)
            own = query[cell] / query[cell].norm()
            others = sum(math.exp(float((own @ negative).detach()) / TAU) for negative in queue)
            losses.append(-math.log(positive / (positive + others)))
            matches.append(match)
    return sum(losses) / len(losses), matches


def test_the_loss_equals_the_loops(monkeypatch):
    model = tiny_densecl().double()
    seen = []
    local_losses = model.local_losses
    monkeypatch.setattr(model, "local_losses", lambda *a: seen.append(a) or local_losses(*a))
    keys, local_keys = [], model.local_keys
    monkeypatch.setattr(model, "local_keys", lambda maps, windows: keys.append(maps) or local_keys(maps, windows))
    queue = model.dense_queue.clone()
    results = model(**tiny_batch())
    ((query_maps, *_),) = seen
    expected, matches = of_loops(query_maps, keys[0], queue)
    assert len(set(matches)) > 1, "cells have other matches than one"
    assert results["loss_dense"].item() == pytest.approx(0.5 * expected, rel=1e-12)


def test_the_gradient_is_that_of_the_softmax():
    """Of the cells' head, by differences in float64; the match is no function that has one."""
    model = tiny_densecl().double().eval()
    model.momentum = 1.0  # keys stay while the queries' head moves
    weight, batch = model.encoder_q.dense_head[2].weight, tiny_batch()

    def loss():
        torch.manual_seed(3)
        queues = model.queue.clone(), model.dense_queue.clone()
        value = model(**batch)["loss_dense"]
        model.queue, model.dense_queue = queues
        return value

    loss().backward()
    for place in ((0, 0), (5, 100), (15, 511)):
        found = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
                found.append(loss().item())
                weight[place] -= step
        difference = (found[0] - found[1]) / 2e-5
        assert weight.grad[place].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_queues_take_their_own_keys():
    model = tiny_densecl()
    before = model.dense_queue.clone()
    torch.manual_seed(5)
    model(**tiny_batch())
    assert torch.equal(model.dense_queue[8:], before[:-8]) and not torch.equal(model.dense_queue[:8], model.queue[:8])
    torch.testing.assert_close(model.dense_queue.norm(dim=1), torch.ones(32))


def test_the_instance_branch_is_moco_s():
    moco, dense = tiny_moco(), tiny_densecl(instance_weight=0.5)
    for name, value in moco.encoder_q.state_dict().items():
        assert torch.equal(dense.encoder_q.state_dict()[name], value), name
    torch.manual_seed(5)
    plain = moco(**tiny_batch())["loss_instance"]
    torch.manual_seed(5)
    assert dense(**tiny_batch())["loss_instance"] == 0.5 * plain
    assert dense.transferred().keys() == moco.transferred().keys()


def test_micro_batches_train_as_the_whole_batch_does():
    states = []
    for micro_batch in (None, 8):
        model = tiny_densecl(micro_batch=micro_batch).double()
        wrapper = OptimWrapper(torch.optim.SGD(model.encoder_q.parameters(), lr=0.03, momentum=0.9))
        torch.manual_seed(0)
        logs = model.train_step(tiny_batch(images=12), wrapper)
        states.append((model.state_dict(), logs))
    torch.testing.assert_close(states[1], states[0], rtol=1e-7, atol=1e-9)


def test_the_recipes_are_moco_s_but_for_the_method():
    for mine, moco in (("in1k-densecl-200ep", "in1k-moco-v2-200ep"), ("mini-densecl", "mini-moco-v2")):
        protocols = [train.protocol(recipe, recipe.dataset) for recipe in map(train.load_recipe, (moco, mine))]
        assert runs.differences(*protocols) == {
            "model.type": ["MoCo", "DenseCL"],
            "model.instance_weight": [1.0, 0.5],
            "model.dense_weight": [None, 0.5],
        }
    with pytest.raises(UserError, match=r"there is no setting model.levels.c4|model.levels are ReSim's"):
        train.load_recipe("mini-densecl", {"model.levels": {"c4": {"map_stride": 4, "window": 12, "stride": 8}}})
