"""Loading trunk and pyramid strictly, and what each protocol freezes."""

import copy

import pytest
import torch

from resim_bench import backbone
from resim_bench.errors import UserError
from tests.transfer.conftest import make_backbone
from tests.transfer.helpers import TINY_FPN, detector
from transfer import protocols, weights

IN_THE_NECK = {
    "fpn_lateral3.weight": "neck.lateral_convs.1.conv.weight",
    "fpn_lateral4.weight": "neck.lateral_convs.2.conv.weight",
    "fpn_lateral5.weight": "neck.lateral_convs.3.conv.weight",
    "fpn_output3.weight": "neck.fpn_convs.1.conv.weight",
    "fpn_output4.weight": "neck.fpn_convs.2.conv.weight",
}


def test_every_trunk_tensor_becomes_what_the_file_holds(backbone_path):
    state, _ = backbone.load(backbone_path)
    model = detector()
    before = copy.deepcopy(model.state_dict())
    weights.load(model, state)
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
        weights.load(model, state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_resnet_50_is_named_as_what_does_not_fit(tmp_path):
    state, _ = backbone.load(make_backbone(tmp_path / "r50.safetensors", depth=50, width=64))
    with pytest.raises(UserError, match="and .* more"):
        weights.load(detector(), state)


def test_what_each_protocol_freezes():
    assert weights.frozen_keys(detector("mini-voc-full")) == []
    frozen = weights.frozen_keys(detector("mini-voc-frozen"))
    trunk = weights.trunk_places(detector("mini-voc-frozen"))
    assert frozen == sorted(key for key in trunk if not key.startswith("layer4."))
    model = detector("mini-voc-frozen")
    model.roi_head.shared_head.frozen = True
    assert weights.frozen_keys(model) == sorted(trunk)


@pytest.mark.parametrize(("transfer_id", "carried"), [("coco-1x-fpn-t", IN_THE_NECK), ("coco-1x", {})])
def test_the_pre_trained_pyramid_goes_into_the_neck_bit_for_bit_or_stays_out(fpn_path, transfer_id, carried):
    model = detector(transfer_id, TINY_FPN)
    before = copy.deepcopy(model.state_dict())
    state, _ = backbone.load(fpn_path)
    weights.load(model, state, protocols.load(transfer_id).init_neck)
    after = model.state_dict()
    for key, place in carried.items():
        assert torch.equal(after[place], state[key]) and not torch.equal(after[place], before[place]), key
    trunk = backbone.trunk_state(state)
    assert all(torch.equal(after[f"backbone.{key}"], value) for key, value in trunk.items())
    fresh = after.keys() - set(carried.values()) - {f"backbone.{key}" for key in trunk}
    assert len(fresh) == len(after) - len(trunk) - len(carried)
    assert all(torch.equal(before[key], after[key]) for key in fresh)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [s.pop(key) for key in list(s) if key.startswith("fpn_")], "no feature pyramid for the neck"),
        (lambda s: s.pop("fpn_output4.weight"), "lacks fpn_output4.weight"),
        (lambda s: s.update({"fpn_output2.weight": torch.zeros(1)}), "has no place for fpn_output2.weight"),
        (lambda s: s.update({"fpn_lateral3.weight": torch.zeros(1)}), "another shape for fpn_lateral3.weight"),
    ],
)
def test_a_pyramid_that_does_not_fit_the_neck_is_refused_whole(fpn_path, change, message):
    state, _ = backbone.load(fpn_path)
    change(state)
    model = detector("coco-1x-fpn-t", TINY_FPN)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=message):
        weights.load(model, state, neck=True)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
