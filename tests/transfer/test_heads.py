"""The RoI head's layer4: what comes after it, and what freezing it means."""

import pytest
import torch
import torchvision
from mmengine.model import revert_sync_batchnorm
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm

from pretrain.encoders import resnet
from transfer.heads import ResLayerExtraNorm


def built(frozen=False, norm="SyncBN"):
    return revert_sync_batchnorm(ResLayerExtraNorm(18, norm_cfg=dict(type=norm), frozen=frozen))


def test_it_is_torchvisions_layer4_then_a_norm_and_no_relu():
    torch.manual_seed(0)
    reference = torchvision.models.resnet18().layer4
    head = built()
    head.layer4.load_state_dict(reference.state_dict())
    features = torch.randn(6, 256, 14, 14)
    out = head(features)
    expected = torch.nn.functional.batch_norm(reference(features), None, None, training=True)
    assert out.shape == (6, 512, 7, 7)
    torch.testing.assert_close(out, expected)
    assert (out < 0).any()


def test_the_extra_norm_starts_as_a_plain_normalisation():
    head = built()
    head.init_weights()
    assert (head.norm.weight == 1).all() and (head.norm.bias == 0).all()


@pytest.mark.parametrize("norm", ["SyncBN", "BN"])
def test_frozen_layer4_changes_neither_weights_nor_statistics_while_the_extra_norm_trains(norm):
    head = built(frozen=True, norm=norm)
    head.eval()
    head.train()
    before = {key: value.clone() for key, value in head.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=0.1)
    head(torch.randn(4, 256, 6, 6)).square().sum().backward()
    optimiser.step()
    changed = {key for key, value in head.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }


def test_unfrozen_layer4_trains_with_its_statistics():
    head = built()
    assert all(m.training for m in head.modules() if isinstance(m, _BatchNorm))
    assert all(p.requires_grad for p in head.parameters())


def test_a_narrow_head_is_that_of_a_narrow_trunk():
    head = revert_sync_batchnorm(ResLayerExtraNorm(18, base_channels=16))
    head.layer4.load_state_dict(resnet(18, width=16).layer4.state_dict())
    assert head(torch.randn(6, 64, 6, 6)).shape == (6, 128, 3, 3)
