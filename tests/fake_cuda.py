"""A training step on a GPU that is not there: PyTorch's fake tensors have a device and a shape, and no values.

What meets a tensor of another device is refused as CUDA refuses it, and so is what needs a value: `.item()`, a truth, a
mask whose count is a shape.
"""

import contextlib

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from pretrain import views

CUDA = torch.device("cuda:0")


@contextlib.contextmanager
def fake_cuda():
    """Inside, every tensor is fake, and there is a device `cuda`."""
    constants = views._mean_and_std  # kept by device, from call to call
    constants.cache_clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        constants.cache_clear()


def fake(tree, device="cpu"):
    """Fake twins of the tensors in a tree of lists, tuples and dictionaries."""

    def twin(t):
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)

    return tree_map_only(torch.Tensor, twin, tree)


def on_cuda(model: BaseModel) -> BaseModel:
    """The model, moved there by its parameters and buffers; what is neither stays."""
    for module in model.modules():
        module._buffers.update(fake(module._buffers, CUDA))
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(fake(parameter, CUDA), parameter.requires_grad)
    model._set_device(CUDA)
    return model


def step(model: BaseModel, batch) -> dict[str, torch.Tensor]:
    """What the Runner does in an iteration, from a batch on the host to the optimiser; returns what is logged."""
    with fake_cuda():
        wrapper = WalkingOptimWrapper(torch.optim.SGD(on_cuda(model).parameters(), lr=0.1, momentum=0.9))
        return model.train_step(fake(batch), wrapper)


class WalkingOptimWrapper(OptimWrapper):
    """mmengine's, without autograd's engine, which asks a driver for streams: the graph is walked by `backward`."""

    def backward(self, loss, **_):
        backward(loss)


def backward(loss: torch.Tensor) -> None:
    """Gradients of the leaves, by calling the nodes of autograd's graph one after the other."""
    gradients = {loss.grad_fn: [torch.ones_like(loss)]}
    with torch.no_grad():
        for node in _downwards(loss.grad_fn):
            given = gradients.pop(node)
            if hasattr(node, "variable"):
                node.variable.grad = _sum(node.variable.grad, *given)
                continue
            for (inner, place), gradient in _of_inputs(node, given):
                wanted = inner._input_metadata
                slots = gradients.setdefault(inner, [None] * len(wanted))
                gradient = gradient.sum_to_size(wanted[place].shape)  # of what was broadcast
                slots[place] = _sum(slots[place], gradient)


def _sum(before, gradient):
    return gradient if before is None else before + gradient


def _of_inputs(node, given):
    """What a node of the graph is told of its outputs becomes (where from, gradient) of its inputs."""
    if hasattr(node, "_forward_cls"):  # written in Python: it also answers for inputs that are no tensors
        found = [gradient for gradient in node.apply(*given) if gradient is not None]
        return zip([edge for edge in node.next_functions if edge[0]], found, strict=True)
    found = node(*given)
    pairs = zip(node.next_functions, found if isinstance(found, tuple) else (found,), strict=True)
    return [(edge, gradient) for edge, gradient in pairs if edge[0] and gradient is not None]


def _downwards(root):
    """The nodes below and with `root`, each after all that have it as an input."""
    seen, order, stack = set(), [], [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(inner, False) for inner, _ in node.next_functions if inner is not None]
    return reversed(order)
