"""A step of each method on a GPU that is not there: nothing lies on another device, nothing is read back."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from pretrain.methods.moco import MoCo
from pretrain.methods.supervised import Supervised
from tests import fake_cuda
from tests.pretrain.helpers import LEVEL, PYRAMID, tiny_batch, tiny_densecl, tiny_moco

C4 = {"c4": LEVEL}
BACKBONE = {"depth": 18, "strides": (1, 1, 2, 2)}


def tiny_supervised():
    return Supervised(BACKBONE, num_classes=7, bn_group=4)


def labelled_batch():
    return {"image": tiny_batch()["query"], "label": torch.arange(8) % 7}


STEPS = {
    "moco-v2": (tiny_moco, tiny_batch),
    "resim-c4": (lambda: tiny_moco(C4), lambda: tiny_batch(C4)),
    "resim-c4, overlap": (
        lambda: tiny_moco({"c4": LEVEL | {"anchor": "overlap"}}),
        lambda: tiny_batch({"c4": LEVEL | {"anchor": "overlap"}}),
    ),
    "resim-c4, permuted": (lambda: tiny_moco({"c4": LEVEL | {"positives": "permuted"}}), lambda: tiny_batch(C4)),
    "resim-c4, in parts": (lambda: tiny_moco(C4, micro_batch=4), lambda: tiny_batch(C4)),
    "resim-fpn": (lambda: tiny_moco(PYRAMID), lambda: tiny_batch(PYRAMID)),
    "resim-fpn, as released": (
        lambda: tiny_moco({name: level | {"negatives": "dense-group"} for name, level in PYRAMID.items()}),
        lambda: tiny_batch(PYRAMID),
    ),
    "densecl": (tiny_densecl, tiny_batch),
    "supervised": (tiny_supervised, labelled_batch),
}


@pytest.mark.parametrize("method", STEPS)
def test_a_step_stays_on_its_device_and_reads_nothing(method):
    model, batch = (make() for make in STEPS[method])
    logs = fake_cuda.step(model, batch)
    assert {value.device for value in logs.values()} == {fake_cuda.CUDA}
    assert {value.device for value in model.state_dict().values()} == {fake_cuda.CUDA}


class Broken(MoCo):
    """MoCo with a mistake on top of each loss."""

    def __init__(self, mistake):
        super().__init__(BACKBONE, 16, 32, 0.9, 0.2, {}, bn_group=4)
        self.mistake, self.weights = mistake, torch.ones(8)

    def local_losses(self, maps, keys, windows, first):
        return {"loss_broken": self.mistake(self, keys.embedding.sum(dim=1))}


OTHER_DEVICE = RuntimeError, "two different devices cuda:0, cpu"
MISTAKES = {
    "made on the host": (lambda _, x: (x * torch.arange(len(x))).sum(), *OTHER_DEVICE),
    "a buffer that is none": (lambda model, x: (x * model.weights).sum(), *OTHER_DEVICE),
    "item": (lambda _, x: x.sum() / x.max().item(), DataDependentOutputException, "_local_scalar_dense"),
    "tolist": (lambda _, x: x.sum() / sum(x.tolist()), DataDependentOutputException, "_local_scalar_dense"),
    "a truth": (lambda _, x: x.sum() if x.sum() > 0 else 0 * x.sum(), DataDependentOutputException, "_local_scalar"),
    "a mask": (lambda _, x: x[x > 0].sum(), DynamicOutputShapeException, "nonzero"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake):
    wrong, error, said = MISTAKES[mistake]
    with pytest.raises(error, match=said):
        fake_cuda.step(Broken(wrong), tiny_batch())
    fake_cuda.step(Broken(lambda _, x: x.sum()), tiny_batch())


@pytest.mark.parametrize("method", ["resim-fpn", "densecl"])
def test_the_graph_is_walked_as_autograd_s_engine_does(method):
    """On the CPU, with values: the same gradients, to the order of a sum."""
    make, batch, gradients = *STEPS[method], []
    for backward in (torch.Tensor.backward, fake_cuda.backward):
        torch.manual_seed(0)
        model = make().double()
        torch.manual_seed(0)
        loss, _ = model.parse_losses(model(**batch()))
        backward(loss)
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)
