"""The feature pyramid against torchvision's, and what of an encoder reaches whom."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torchvision.ops import FeaturePyramidNetwork

from pretrain.encoders import FPN, resnet, trunk_maps
from tests.pretrain.helpers import LEVEL, PYRAMID, tiny_batch, tiny_moco


def test_the_pyramid_is_torchvision_s_without_p5():
    torch.manual_seed(0)
    ours = FPN(32, 8).double()
    theirs = FeaturePyramidNetwork([8, 16, 32], 8).double()
    for index, level in enumerate((3, 4, 5)):
        theirs.inner_blocks[index][0].load_state_dict(getattr(ours, f"lateral{level}").state_dict())
        if level < 5:
            theirs.layer_blocks[index][0].load_state_dict(getattr(ours, f"output{level}").state_dict())
    sides = {"c3": (8, 12, 12), "c4": (16, 6, 6), "c5": (32, 3, 3)}
    maps = {name: torch.randn(2, *shape, dtype=torch.float64) for name, shape in sides.items()}
    expected = theirs(maps)
    found = ours(maps)
    assert set(found) == {"p4", "p3"}
    assert torch.equal(found["p4"], expected["c4"]) and torch.equal(found["p3"], expected["c3"])


def test_the_pyramid_of_a_resnet_50():
    """Laterals 1 x 1 from C5, C4, C3 and outputs 3 x 3 on P4, P3, with bias; kaiming-uniform of a = 1, biases 0."""
    torch.manual_seed(0)
    fpn = FPN(2048, 256)
    shapes = {name: tuple(value.shape) for name, value in fpn.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "lateral5.weight": (256, 2048, 1, 1),
        "lateral4.weight": (256, 1024, 1, 1),
        "lateral3.weight": (256, 512, 1, 1),
        "output4.weight": (256, 256, 3, 3),
        "output3.weight": (256, 256, 3, 3),
    }
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in fpn.modules())
    for convolution in fpn.children():
        fan_in = convolution.weight[0].numel()
        bound = (3 / fan_in) ** 0.5
        assert convolution.weight.abs().max() <= bound
        assert convolution.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert not convolution.bias.any()
    maps = fpn(trunk_maps(resnet(50), torch.randn(1, 3, 224, 224)))
    assert [tuple(maps[name].shape[1:]) for name in ("p4", "p3")] == [(256, 14, 14), (256, 28, 28)]


def test_the_instance_branch_reads_c5_and_not_the_pyramid():
    model = tiny_moco(PYRAMID)
    torch.manual_seed(5)
    results = model(**tiny_batch(PYRAMID))
    results["loss_instance"].backward(retain_graph=True)
    assert all(p.grad is None for p in model.encoder_q.fpn.parameters())
    (results["loss_p4"] + results["loss_p3"]).backward()
    for name, parameter in model.encoder_q.fpn.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert model.encoder_q.trunk.layer4[0].conv1.weight.grad.abs().sum() > 0, "C5 feeds the pyramid"


def test_the_key_s_pyramid_follows_by_momentum():
    model = tiny_moco(PYRAMID, momentum=0.75)
    assert not any(p.requires_grad for p in model.encoder_k.fpn.parameters())
    with torch.no_grad():
        for p in model.encoder_q.fpn.parameters():
            p.add_(1)
    before = [p.clone() for p in model.encoder_k.fpn.parameters()]
    model(**tiny_batch(PYRAMID))
    for old, new in zip(before, model.encoder_k.fpn.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_regions_are_compared_in_the_pyramid_itself():
    model = tiny_moco(PYRAMID)
    assert not model.encoder_q.region_heads
    images = torch.randn(2, 3, 32, 32)
    encoder = model.encoder_q.eval()
    expected = encoder.fpn(trunk_maps(encoder.trunk, images))
    _, maps = encoder(images)
    assert list(maps) == ["p4", "p3"]
    assert all(torch.equal(maps[name], expected[name]) for name in maps)


def _pointwise(x, weight, bias):
    return torch.einsum("nchw,dc->ndhw", x, weight[:, :, 0, 0]) + bias[:, None, None]


HEADS = {
    None: lambda x, weight, bias: conv2d(x, weight, bias, padding=1),
    "conv3x3": lambda x, weight, bias: conv2d(x, weight, bias, padding=1),
    "conv1x1": _pointwise,
    "mlp": lambda x, *of_both: _pointwise(_pointwise(x, *of_both[:2]).clamp(min=0), *of_both[2:]),
}


@pytest.mark.parametrize("head", HEADS)
def test_regions_on_c4_are_compared_after_a_head(head):
    encoder = tiny_moco({"c4": LEVEL | ({"head": head} if head else {})}).encoder_q.double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    parameters = list(encoder.region_heads["c4"].parameters())
    assert tuple(parameters[0].shape[2:]) == ((3, 3) if head in (None, "conv3x3") else (1, 1))
    expected = HEADS[head](trunk_maps(encoder.trunk, images)["c4"], *parameters)
    torch.testing.assert_close(encoder(images)[1]["c4"], expected)


def test_what_is_transferred():
    model = tiny_moco(PYRAMID)
    with torch.no_grad():
        for p in model.encoder_q.parameters():
            p.add_(1)  # unlike the key encoder's
    state = model.transferred()
    names = [f"{part}.{kind}" for part in ("lateral3", "lateral4", "lateral5", "output3", "output4") for kind in "wb"]
    kinds = {"w": "weight", "b": "bias"}
    assert {key for key in state if key.startswith("fpn_")} == {f"fpn_{name[:-1]}{kinds[name[-1]]}" for name in names}
    assert torch.equal(state["fpn_lateral5.weight"], model.encoder_q.fpn.lateral5.weight)
    trunk = {key: value for key, value in state.items() if not key.startswith("fpn_")}
    assert trunk.keys() == tiny_moco({"c4": LEVEL}).transferred().keys()
    assert torch.equal(trunk["conv1.weight"], model.encoder_q.trunk.conv1.weight)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_narrow_resnet_is_torchvision_s_with_fewer_channels(depth):
    """A quarter of the channels everywhere, drawn from the same law, and a network that runs."""
    torch.manual_seed(0)
    narrow, full = resnet(depth, width=16), resnet(depth)
    wide = full.state_dict()
    assert narrow.state_dict().keys() == wide.keys()
    for name, value in narrow.state_dict().items():
        assert [4 * n if n != 3 and i < 2 else n for i, n in enumerate(value.shape)] == list(wide[name].shape)
    for name, module in narrow.named_modules():
        if isinstance(module, nn.Conv2d):
            other = full.get_submodule(name)
            assert (module.stride, module.padding, module.bias) == (other.stride, other.padding, None)
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
    images = torch.randn(2, 3, 64, 64)
    (n, channels, *cells), wide_map = trunk_maps(narrow, images)["c4"].shape, trunk_maps(full, images)["c4"]
    assert (n, 4 * channels, *cells) == wide_map.shape
