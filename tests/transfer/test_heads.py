"""Where parts are Detectron2's: layer4 and its extra norm, the RPN's targets, detections without area."""

import pytest
import torch
import torchvision
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import TASK_UTILS, DefaultScope
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm

from pretrain.encoders import resnet
from tests.transfer.helpers import detector
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


def assigned(kind, boxes, objects, low_quality=True):
    settings = dict(type=kind, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.0, match_low_quality=low_quality)
    with DefaultScope.overwrite_default_scope("mmdet"):
        assigner = TASK_UTILS.build(settings)
    labels = torch.arange(len(objects)) + 10
    return assigner.assign(InstanceData(priors=boxes), InstanceData(bboxes=objects, labels=labels))


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / area


@pytest.mark.parametrize("seed", range(5))
def test_a_positive_anchor_keeps_the_object_that_it_overlaps_most(seed):
    rng = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (60, 2), generator=rng).float()
    boxes = torch.cat([corner, corner + torch.randint(8, 30, (60, 2), generator=rng)], dim=1)
    objects = boxes[:8] + torch.randint(-3, 4, (8, 4), generator=rng)  # crowded: several share their best anchor
    overlaps = [[overlap(o, b) for b in boxes.tolist()] for o in objects.tolist()]
    expected = []
    for anchor in range(60):
        own = [row[anchor] for row in overlaps]
        is_best = any(row[anchor] == pytest.approx(max(row), abs=1e-6) for row in overlaps)
        positive, negative = max(own) >= 0.7 or is_best, max(own) < 0.3
        expected.append(own.index(max(own)) + 1 if positive else 0 if negative else -1)
    found = assigned("Detectron2Assigner", boxes, objects)
    assert found.gt_inds.tolist() == expected
    assert found.labels.tolist() == [index + 9 if index > 0 else -1 for index in expected]
    stock = assigned("MaxIoUAssigner", boxes, objects)
    assert (stock.gt_inds > 0).tolist() == (found.gt_inds > 0).tolist(), "only the object may be another"


def test_an_anchor_that_is_the_best_of_two_objects_goes_to_the_nearer():
    boxes, objects = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 5]])
    assert assigned("Detectron2Assigner", boxes, objects).gt_inds.tolist() == [1]
    assert assigned("MaxIoUAssigner", boxes, objects).gt_inds.tolist() == [2]


def test_without_an_object_every_anchor_is_negative():
    found = assigned("Detectron2Assigner", torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(0, 4))
    assert found.gt_inds.tolist() == [0]


def rpn_losses(kind, objects, sizes):
    """Of a batch of 32 x 48 px, stride 16, three anchors a cell; every logit and delta is 0."""
    rpn = detector("voc-full", {"model.rpn_head.type": kind}).rpn_head.train()
    anchors = rpn.prior_generator.num_base_priors[0]
    logits, deltas = torch.zeros(len(sizes), anchors, 2, 3), torch.zeros(len(sizes), 4 * anchors, 2, 3)
    metas = [{"img_shape": size, "pad_shape": size} for size in sizes]
    instances = [InstanceData(bboxes=o, labels=torch.zeros(len(o), dtype=torch.long)) for o in objects]
    losses = rpn.loss_by_feat([logits], [deltas], instances, metas)
    return losses["loss_rpn_cls"][0].item()


def test_anchors_in_the_padding_take_part_and_the_divisor_is_fixed():
    """Each of the sampled anchors costs log 2; 2 x 256 are meant to be sampled."""
    nothing = [torch.zeros(0, 4), torch.zeros(0, 4)]
    in_all, log2 = 2 * 15 * 6, torch.tensor(2.0).log().item()
    assert rpn_losses("Detectron2RPNHead", nothing, [(32, 48), (16, 16)]) == pytest.approx(in_all * log2 / 512)
    in_images = 15 * 6 + 15 * 1
    expected = in_images * log2 / (in_images + 2)  # MMDetection counts one positive per image at least
    assert rpn_losses("RPNHead", nothing, [(32, 48), (16, 16)]) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["BBoxHead", "Detectron2BBoxHead"])
def test_a_detection_without_area_is_dropped(kind):
    head = detector("voc-full", {"model.roi_head.bbox_head.type": kind}).roi_head
    rois = torch.tensor([[0, 1.0, 1, 9, 9], [0, 100, 1, 120, 9]])  # the second lies right of the image
    scores = torch.full((2, 21), -9.0)
    scores[:, 3] = 9
    (found,) = head.bbox_head.predict_by_feat(
        (rois,), (scores,), (torch.zeros(2, 80),), [{"img_shape": (50, 50)}], rcnn_test_cfg=head.test_cfg
    )
    assert len(found.bboxes) == len(found.scores) == len(found.labels) == (1 if kind == "Detectron2BBoxHead" else 2)
