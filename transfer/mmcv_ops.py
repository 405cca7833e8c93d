"""torchvision's kernels under the name of mmcv's compiled operators, `mmcv._ext`.

A plain install of mmcv has no compiled extension, and mmdet does not import without one. The C4 detectors need two
operators only, and torchvision ships both for CPU and GPU. The compiled extension is used wherever there is one.
"""

import importlib.machinery
import importlib.util
import sys
from types import ModuleType

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)

from resim_bench.errors import UserError

NAME = "mmcv._ext"


def nms(boxes, scores, iou_threshold, offset):
    """Indices (K,) int64 of the boxes kept, by falling score.

    Args:
        boxes: (N, 4) as (x0, y0, x1, y1).
        scores: (N,).
        iou_threshold: a box goes when its IoU with a kept one is greater.
        offset: 1 where a box from 0 to 9 is 10 wide (inclusive corners), else 0.
    """
    corners = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(corners, scores, iou_threshold)


def roi_align_forward(
    features,
    rois,
    output,
    argmax_y,
    argmax_x,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """Average `features` (N, C, H, W) over `rois` (R, 5) into `output` (R, C, aligned_height, aligned_width).

    `pool_mode` is 1 (average); `argmax_*` belong to maximum pooling, which torchvision does not have.
    """
    _need_average(pool_mode)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output,
    rois,
    argmax_y,
    argmax_x,
    grad_input,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
):
    """Write the gradient of `roi_align_forward` by its features into `grad_input` (N, C, H, W)."""
    _need_average(pool_mode)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _need_average(pool_mode):
    if pool_mode != 1:
        raise UserError("RoIAlign with pool_mode='max' needs mmcv's compiled operators: use pool_mode='avg'")


class _Extension(ModuleType):
    """The stand-in: what torchvision has, and for every other operator a function that says it is missing."""

    nms = staticmethod(nms)
    roi_align_forward = staticmethod(roi_align_forward)
    roi_align_backward = staticmethod(roi_align_backward)

    def __getattr__(self, operator):
        if operator.startswith("__"):
            raise AttributeError(operator)

        def missing(*args, **kwargs):
            raise UserError(
                f"the operator '{operator}' is not in torchvision and mmcv has no compiled operators here: install "
                "mmcv with --no-build-isolation (20 minutes) or choose a model without it"
            )

        return missing


def is_compiled() -> bool:
    """Whether the installed mmcv has its own extension; finds out without importing mmcv."""
    mmcv = importlib.util.find_spec("mmcv")
    folders = mmcv.submodule_search_locations if mmcv else None
    return importlib.machinery.PathFinder.find_spec("_ext", folders) is not None


def install() -> None:
    """Put the stand-in where `import mmcv._ext` looks, unless the compiled extension is there."""
    if NAME not in sys.modules and not is_compiled():
        module = _Extension(NAME)
        # mmengine asks `importlib.util.find_spec("mmcv._ext")`, which reads the spec of a loaded module.
        module.__spec__ = importlib.machinery.ModuleSpec(NAME, loader=None)
        sys.modules[NAME] = module
