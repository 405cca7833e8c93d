"""What of a detector's step runs on a GPU that is not there; what of it asks for values is MMDetection's.

MMDetection reads back in its targets, in the RPN's proposals and in the RPN's loss (the last test): fake tensors stop
there. So boxes and targets are given here; what lies between them is the trunk, the RPN's layers and anchors, RoI
pooling by torchvision's kernel, res5, the box head and its losses. A pyramid's RoI pooling reads back, too: left out.
"""

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from tests import fake_cuda
from tests.transfer.conftest import TINY
from tests.transfer.helpers import detector
from transfer import hooks
from transfer.heads import ResLayerExtraNorm

OPTIONS = TINY | {"model.rpn_head.type": "Detectron2RPNHead"}
IMAGES, REGIONS, SIZE = 2, 16, (64, 96)
META = {"img_shape": SIZE, "pad_shape": SIZE, "batch_input_shape": SIZE, "scale_factor": (1, 1)}
OTHER_DEVICE = "two different devices cuda:0, cpu"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return detector("mini-voc-full", OPTIONS).train()


def losses(model, device):
    """Of a batch of noise and given boxes: a loss of each output of RPN and box head."""
    precision = next(model.parameters()).dtype
    maps = model.extract_feat(torch.rand(IMAGES, 3, *SIZE, device=device, dtype=precision))
    scores, deltas = (outputs[0] for outputs in model.rpn_head(maps))
    anchors, _ = model.rpn_head.get_anchors([scores.shape[-2:]], [META] * IMAGES, device=device)
    targets = torch.stack([levels[0] for levels in anchors]).to(precision)
    deltas = deltas.permute(0, 2, 3, 1).reshape(targets.shape)
    corners = [[i % IMAGES, 4, 4, 30 + i, 50] for i in range(REGIONS)]
    found = model.roi_head._bbox_forward(maps, torch.tensor(corners, device=device, dtype=precision))
    classes = torch.arange(REGIONS, device=device) % model.roi_head.bbox_head.num_classes
    head = model.roi_head.bbox_head
    return [
        scores.square().mean(),
        model.rpn_head.loss_bbox(deltas, targets / 96, avg_factor=targets.numel()),
        head.loss_cls(found["cls_score"], classes, avg_factor=REGIONS),
        head.loss_bbox(found["bbox_pred"], torch.ones_like(found["bbox_pred"]), avg_factor=REGIONS),
    ]


def step(model):
    with fake_cuda.fake_cuda():
        loss = sum(losses(fake_cuda.on_cuda(model), fake_cuda.CUDA))
        fake_cuda.backward(loss)
        return loss


@pytest.mark.parametrize("what", hooks.RECOMPUTED)
def test_losses_and_gradients_stay_on_their_device_and_read_nothing(model, what):
    hooks.RecomputeHook(what).before_train(SimpleNamespace(model=model))
    loss = step(model)
    found = {p.grad.device for p in model.parameters()} | {value.device for value in model.state_dict().values()}
    assert found == {loss.device} == {fake_cuda.CUDA}


def test_the_gradients_are_those_of_autograd_s_engine():
    gradients = []
    for backward in (torch.Tensor.backward, fake_cuda.backward):
        torch.manual_seed(0)
        model = detector("mini-voc-full", OPTIONS).train().double()
        backward(sum(losses(model, torch.device("cpu"))))
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-7, atol=1e-12)


MISTAKES = {
    "made on the host": (lambda x: x * torch.arange(x.shape[-1]), RuntimeError, OTHER_DEVICE),
    "item": (lambda x: x / x.max().item(), DataDependentOutputException, "_local_scalar_dense"),
    "a mask": (lambda x: x + x[x > 0].mean(), DynamicOutputShapeException, "nonzero"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_res5_is_seen(model, monkeypatch, mistake):
    wrong, error, said = MISTAKES[mistake]
    right = ResLayerExtraNorm.forward
    monkeypatch.setattr(ResLayerExtraNorm, "forward", lambda self, x: wrong(right(self, x)))
    with pytest.raises(error, match=said):
        step(model)


def test_precise_batch_norm_stays_on_its_device_and_reads_nothing(model):
    layers = [m for m in model.backbone.modules() if isinstance(m, _BatchNorm)]
    with fake_cuda.fake_cuda(), torch.no_grad():
        fake_cuda.on_cuda(model)
        batches = [torch.ones(IMAGES, 3, *SIZE, device=fake_cuda.CUDA)] * 2
        hooks.population_statistics(layers, model.extract_feat, batches)
    assert {layer.running_var.device for layer in layers} == {fake_cuda.CUDA}


READS = {
    "the RPN's targets": lambda model, rpn, maps, objects: model.rpn_head.loss_by_feat(*rpn, objects, [META] * IMAGES),
    "the RPN's loss": lambda model, rpn, maps, objects: model.rpn_head.loss_cls(
        torch.rand(9, 1, device=fake_cuda.CUDA), torch.zeros(9, dtype=torch.long, device=fake_cuda.CUDA), avg_factor=9
    ),
    "proposals": lambda model, rpn, maps, objects: model.rpn_head.predict_by_feat(*rpn, None, [META] * IMAGES),
    "the regions' targets": lambda model, rpn, maps, objects: model.roi_head.bbox_assigner.assign(
        InstanceData(priors=objects[0].bboxes), objects[0]
    ),
}


@pytest.mark.parametrize("part", READS)
def test_mmdetection_reads_back(model, part):
    """Why boxes and targets are given: where this turns red, more of a step may be tried."""
    with fake_cuda.fake_cuda(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        maps = fake_cuda.on_cuda(model).extract_feat(torch.rand(IMAGES, 3, *SIZE, device=fake_cuda.CUDA))
        boxes, label = torch.ones(1, 4, device=fake_cuda.CUDA), torch.ones(1, device=fake_cuda.CUDA)
        READS[part](model, model.rpn_head(maps), maps, [InstanceData(bboxes=boxes, labels=label)] * IMAGES)
