"""Loading the trunk strictly, proving what is frozen, and precise batch norm against the population itself."""

import copy

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from resim_bench import backbone
from resim_bench.errors import UserError
from tests.transfer.conftest import make_backbone
from transfer import hooks, protocols


def detector(transfer_id="mini-voc-full"):
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(protocols.load(transfer_id).model)
        model.init_weights()
    return revert_sync_batchnorm(model)


def test_every_trunk_tensor_becomes_what_the_file_holds(backbone_path):
    state, _ = backbone.load(backbone_path)
    model = detector()
    before = copy.deepcopy(model.state_dict())
    hooks.load_trunk(model, state)
    after = model.state_dict()
    for key, value in state.items():
        place = "roi_head.shared_head." if key.startswith("layer4.") else "backbone."
        assert torch.equal(after[place + key], value), key
    rest = [k for k in after if k.startswith(("rpn_head.", "roi_head.bbox_head.", "roi_head.shared_head.norm."))]
    assert len(rest) + len(state) == len(after)
    assert all(torch.equal(before[k], after[k]) for k in rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "lacks layer1.0.conv1.weight"),
        (lambda s: s.pop("layer4.1.bn2.running_var"), "lacks layer4.1.bn2.running_var"),
        (lambda s: s.update({"layer3.2.conv1.weight": torch.zeros(1)}), "has no place for layer3.2.conv1.weight"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}), "has another shape for conv1.weight"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused_whole(backbone_path, change, message):
    state, _ = backbone.load(backbone_path)
    change(state)
    model = detector()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=message):
        hooks.load_trunk(model, state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_resnet_50_is_named_as_what_does_not_fit(tmp_path):
    state, _ = backbone.load(make_backbone(tmp_path / "r50.safetensors", depth=50))
    with pytest.raises(UserError, match="and .* more"):
        hooks.load_trunk(detector(), state)


def test_what_each_protocol_freezes():
    assert hooks.frozen_keys(detector("mini-voc-full")) == []
    frozen = hooks.frozen_keys(detector("mini-voc-frozen"))
    trunk = hooks.trunk_of(detector("mini-voc-frozen"))
    assert frozen == sorted(key for key in trunk if not key.startswith("layer4."))
    model = detector("mini-voc-frozen")
    model.roi_head.shared_head.frozen = True
    assert hooks.frozen_keys(model) == sorted(trunk)


class Runner:
    """What BackboneHook looks at."""

    def __init__(self, model, iteration=0):
        self.model, self.iter, self.said = model, iteration, []
        self.logger = self

    def info(self, line):
        self.said.append(line)


def test_a_frozen_tensor_that_changed_is_found(backbone_path):
    runner = Runner(detector("mini-voc-frozen"))
    hook = hooks.BackboneHook(str(backbone_path))
    hook.before_train(runner)
    hook.after_train(runner)
    assert runner.said == ["90 frozen tensors of the trunk are what was loaded, bit for bit"]
    statistics = runner.model.backbone.layer3[1].bn2.running_mean
    statistics[7] = torch.nextafter(statistics[7], torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="1 frozen tensors, among them layer3.1.bn2.running_mean"):
        hook.after_train(runner)


def test_loading_wins_over_initialisation_and_loses_to_a_checkpoint(backbone_path):
    state, _ = backbone.load(backbone_path)
    resumed = Runner(detector(), iteration=3)
    before = resumed.model.backbone.conv1.weight.clone()
    hooks.BackboneHook(str(backbone_path)).before_train(resumed)
    assert torch.equal(resumed.model.backbone.conv1.weight, before)
    assert not torch.equal(before, state["conv1.weight"])


def test_without_a_path_the_hook_says_what_to_set():
    with pytest.raises(UserError, match="custom_hooks.0.path"):
        hooks.BackboneHook().before_train(Runner(detector()))


def test_precise_statistics_are_those_of_the_whole_population():
    torch.manual_seed(0)
    layer, frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()
    batches = [torch.randn(n, 3, h, h) * 2 + n for n, h in ((2, 4), (5, 3), (1, 7))]
    hooks.population_statistics([layer], lambda x: frozen(layer(x)), batches)
    population = torch.cat([x.transpose(0, 1).reshape(3, -1) for x in batches], 1).double()
    torch.testing.assert_close(layer.running_mean, population.mean(1).float())
    torch.testing.assert_close(layer.running_var, population.var(1, correction=0).float())
    assert layer.momentum == 0.1 and not layer._forward_pre_hooks
    assert (frozen.running_mean == 0).all() and (frozen.running_var == 1).all()


def test_precise_statistics_equal_fvcores_formula():
    """fvcore/nn/precise_bn.py: momentum 1, batch statistics weighted by size, variance un-Bessel-ed."""
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4)
    batches = [torch.randn(n, 4, 5, 5) + n for n in (3, 1, 6)]
    reference = nn.BatchNorm2d(4, momentum=1.0)
    total, mean, square = 0, 0.0, 0.0
    for batch in batches:
        reference(batch)
        n = batch.numel() / 4
        total += n
        batch_square = reference.running_mean.square() + reference.running_var * (n - 1) / n
        mean = mean + (reference.running_mean - mean) * (n / total)
        square = square + (batch_square - square) * (n / total)
    hooks.population_statistics([layer], layer, batches)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, square - mean.square())


def _rank(rank, port, queue):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    batches = [torch.randn(n, 3, 4, 4) + n for n in (2, 5, 1, 3)]
    layer = nn.BatchNorm2d(3)
    hooks.population_statistics([layer], layer, batches[rank::2])
    queue.put((rank, layer.running_mean.tolist(), layer.running_var.tolist()))
    torch.distributed.destroy_process_group()


def test_all_processes_end_with_the_statistics_of_all():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_rank, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found[0][1:] == found[1][1:]
    torch.manual_seed(0)
    batches = [torch.randn(n, 3, 4, 4) + n for n in (2, 5, 1, 3)]
    layer = nn.BatchNorm2d(3)
    hooks.population_statistics([layer], layer, batches)
    torch.testing.assert_close(torch.tensor(found[0][1]), layer.running_mean)
    torch.testing.assert_close(torch.tensor(found[0][2]), layer.running_var)


def test_tf32_is_off_during_the_run_only():
    before = torch.backends.cudnn.allow_tf32
    hook = hooks.Float32Hook()
    hook.before_run(None)
    assert torch.backends.cudnn.allow_tf32 is False
    hook.after_run(None)
    assert torch.backends.cudnn.allow_tf32 == before
