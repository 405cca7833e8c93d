"""What float32 means on a GPU."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


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
