"""In which precision a training computes: what float32 means on a GPU, and bfloat16."""

import contextlib

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from torch.utils._pytree import tree_map_only

from resim_bench.harness.launch import unwrapped

OPTIM_WRAPPER = {"float32": "OptimWrapper", "tf32": "OptimWrapper", "bfloat16": "Bfloat16OptimWrapper"}
"""What a `precision` trains with, by its name."""


@HOOKS.register_module()
class Float32Hook(Hook):
    """Float32 as it is written, as on the GPUs of 2020: cuDNN would take TF32 for convolutions. Restored after the run.

    Args:
        tf32: take TF32 all the same, for convolutions and matrix products: ten bits of mantissa, and faster.
    """

    def __init__(self, tf32=False):
        self.tf32 = tf32

    def before_run(self, runner):
        """Switch TF32 on or off."""
        self.before = [place.allow_tf32 for place in _PLACES]
        for place in _PLACES:
            place.allow_tf32 = self.tf32

    def after_run(self, runner):
        """Back to what it was."""
        for place, before in zip(_PLACES, self.before, strict=True):
            place.allow_tf32 = before


_PLACES = (torch.backends.cudnn, torch.backends.cuda.matmul)


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Forward in bfloat16 where autocast holds that safe; works on CPU too, and needs no loss scale.

    Args:
        float32_after: parts of the model by their dotted names, where it has them, whose outputs are float32 again:
            what follows them does not bear three digits.
    """

    def __init__(self, *args, float32_after=(), **settings):
        super().__init__(*args, **settings)
        self.float32_after = frozenset(float32_after)

    @contextlib.contextmanager
    def optim_context(self, model):
        """Autocast around the forward pass."""
        device = next(model.parameters()).device.type
        parts = [part for name, part in unwrapped(model).named_modules() if name in self.float32_after]
        with (
            super().optim_context(model),
            torch.autocast(device, dtype=torch.bfloat16),
            contextlib.ExitStack() as stack,
        ):
            for part in parts:
                stack.callback(part.register_forward_hook(_as_float32).remove)
            yield


def _as_float32(part, inputs, outputs):
    return tree_map_only(torch.Tensor, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, outputs)
