"""Batch norm in groups, in one pass, against a pass for each group."""

import copy

import pytest
import torch
from torch import nn

from pretrain.batchnorm import in_groups
from pretrain.encoders import resnet
from resim_bench.harness.batchnorm import running_statistics_kept
from tests.references.batchnorm import in_passes


@pytest.fixture
def trunks():
    """One with batch norm in groups of 3, and the same without; in double precision, in training."""
    torch.manual_seed(0)
    plain = resnet(18, (1, 1, 2, 2), width=8).double()
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight)
            nn.init.uniform_(norm.bias)
    return in_groups(copy.deepcopy(plain), 3), plain


@pytest.mark.parametrize("images", [3, 6, 9, 8])
def test_one_pass_is_a_pass_for_each_group(trunks, images):
    ours, plain = trunks
    images = torch.randn(images, 3, 32, 32, dtype=torch.float64)
    weights = torch.randn(len(images), 64, dtype=torch.float64)
    found, expected = ours(images), in_passes(plain, images, 3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, parameter), twin in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-7, atol=1e-10, msg=name)
    for (name, buffer), twin in zip(ours.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, twin, rtol=1e-9, atol=1e-11, msg=name)


def test_running_statistics_can_be_kept(trunks):
    ours, plain = trunks
    with running_statistics_kept(ours):
        ours(torch.randn(6, 3, 32, 32, dtype=torch.float64))
    for buffer, twin in zip(ours.buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, twin)


def test_evaluation_is_batch_norm_s(trunks):
    ours, plain = trunks
    images = torch.randn(7, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(ours.eval()(images), plain.eval()(images))


def test_the_keys_are_those_without_groups(trunks):
    ours, plain = trunks
    assert ours.state_dict().keys() == plain.state_dict().keys()
