"""Loading before training, proving what is frozen, and precise batch norm against the population itself."""

import pytest
import torch
from torch import nn

from resim_bench import backbone
from resim_bench.errors import UserError
from tests.transfer.conftest import make_backbone, random_pyramid
from tests.transfer.helpers import TINY_FPN, detector
from transfer import hooks


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
    assert runner.said == [
        "loaded backbone, roi_head.shared_head.layer4",
        "fresh rpn_head, roi_head.shared_head.norm, roi_head.bbox_head",
        "90 frozen tensors of the trunk are what was loaded, bit for bit",
    ]
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


def test_what_was_loaded_dropped_and_fresh_is_said(fpn_path, tmp_path, capsys):
    narrow = make_backbone(tmp_path / "narrow.safetensors", **random_pyramid())
    convolutions = "neck.lateral_convs.1.conv, neck.lateral_convs.2.conv, neck.lateral_convs.3.conv, "
    convolutions += "neck.fpn_convs.1.conv, neck.fpn_convs.2.conv"
    biases = "fpn_lateral3.bias, fpn_lateral4.bias, fpn_lateral5.bias, fpn_output3.bias, fpn_output4.bias"
    norms = ", neck.lateral_convs.1.bn, neck.lateral_convs.2.bn, neck.lateral_convs.3.bn"
    fresh = f"neck.lateral_convs.0{norms}, neck.fpn_convs.0, neck.fpn_convs.1.bn, neck.fpn_convs.2.bn, neck.fpn_convs.3"
    pyramid = "fpn_lateral3, fpn_lateral4, fpn_lateral5, fpn_output3, fpn_output4"
    for path, transfer_id, neck, options, lines in (
        (
            fpn_path,
            "coco-1x",
            True,
            TINY_FPN,
            [f"loaded backbone, {convolutions}; dropped {biases}", f"fresh {fresh}, rpn_head, roi_head"],
        ),
        (
            fpn_path,
            "coco-1x",
            False,
            TINY_FPN,
            [f"loaded backbone; dropped {pyramid}", "fresh neck, rpn_head, roi_head"],
        ),
        (
            narrow,
            "mini-voc-full",
            False,
            {},
            [
                f"loaded backbone, roi_head.shared_head.layer4; dropped {pyramid}",
                "fresh rpn_head, roi_head.shared_head.norm, roi_head.bbox_head",
            ],
        ),
    ):
        runner = Runner(detector(transfer_id, options))
        capsys.readouterr()
        hooks.BackboneHook(str(path), neck).before_train(runner)
        assert runner.said == lines
        assert capsys.readouterr().out == "".join(f"  {line}\n" for line in lines)


def test_without_a_path_the_hook_says_what_to_set():
    with pytest.raises(UserError, match="set backbone to a file"):
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
