"""Detectron2's parts where MMDetection's differ: res5 with one more norm, the RPN's targets, what the heads start from.

Importing mmdet takes seconds and only building a model needs it: it is imported there.
"""

from mmengine.model import BaseModule
from mmengine.registry import MODELS, TASK_UTILS
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn


@MODELS.register_module()
class ResLayerExtraNorm(BaseModule):
    """A ResNet's layer4 for `shared_head`, followed by a norm of the same kind and by no ReLU.

    The extra norm starts as the identity up to normalisation (gamma 1, beta 0) and always trains. Source:
    facebookresearch/moco, detection/ (`Res5ROIHeadsExtraNorm`).

    Args:
        depth: of the ResNet: 18, 34, 50, 101 or 152.
        stride: of layer4's first block.
        norm_cfg: of every norm, the extra one included.
        frozen: keep layer4's weights and running statistics as they were loaded.
        base_channels: of the ResNet, as MMDetection's `ResNet` has it: layer4 has eight times as many.

    `forward(features (R, C, H, W)) -> (R, 2C, H / stride, W / stride)`.
    """

    def __init__(self, depth, stride=2, norm_cfg=None, frozen=False, base_channels=64, init_cfg=None):
        from mmcv.cnn import build_norm_layer
        from mmdet.models.backbones import ResNet
        from mmdet.models.layers import ResLayer

        default_init = [
            dict(type="Kaiming", layer="Conv2d"),
            dict(type="Constant", val=1, layer=["_BatchNorm"]),
        ]
        super().__init__(init_cfg or default_init)
        norm_cfg = norm_cfg or dict(type="SyncBN", requires_grad=True)
        block, blocks = ResNet.arch_settings[depth]
        planes = 8 * base_channels
        self.layer4 = ResLayer(
            block, planes // 2 * block.expansion, planes, blocks[3], stride=stride, style="pytorch", norm_cfg=norm_cfg
        )
        self.norm = build_norm_layer(norm_cfg, planes * block.expansion)[1]
        self.frozen = frozen
        self.train()

    def forward(self, features):
        """Apply layer4 and the extra norm."""
        return self.norm(self.layer4(features))

    def train(self, mode=True):
        """Set the mode, layer4 staying as it was loaded when frozen."""
        super().train(mode)
        if self.frozen:
            self.layer4.requires_grad_(False)
            for module in self.layer4.modules():
                # not nn.BatchNorm2d: neither SyncBatchNorm nor what the Runner makes of it in one process is one
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


@MODELS.register_module(name="Detectron2MaskHead")
def detectron2_mask_head(**settings) -> nn.Module:
    """MMDetection's `FCNMaskHead`, whose predictor starts as Detectron2's: N(0, 0.001), so that no mask is sure.

    MMDetection draws it from Kaiming's distribution, whatever `init_cfg` says.
    """
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    class Detectron2MaskHead(FCNMaskHead):
        def init_weights(self):
            super().init_weights()
            nn.init.normal_(self.conv_logits.weight, std=0.001)

    return Detectron2MaskHead(**settings)


@TASK_UTILS.register_module(name="Detectron2Assigner")
def detectron2_assigner(**settings):
    """MMDetection's `MaxIoUAssigner`, in which a positive always has the object that it overlaps most.

    MMDetection hands an anchor that is the best of several objects to the last of these; Detectron2's
    `set_low_quality_matches_` (modeling/matcher.py) makes it positive and leaves it its own best object.
    """
    from mmdet.models.task_modules.assigners import MaxIoUAssigner

    class Detectron2Assigner(MaxIoUAssigner):
        def assign_wrt_overlaps(self, overlaps, gt_labels):
            result = super().assign_wrt_overlaps(overlaps, gt_labels)
            positive = result.gt_inds > 0
            if positive.any():
                best = overlaps[:, positive].argmax(0)
                result.gt_inds[positive], result.labels[positive] = best + 1, gt_labels[best]
            return result

    return Detectron2Assigner(**settings)


@MODELS.register_module(name="Detectron2RPNHead")
def detectron2_rpn_head(**settings) -> nn.Module:
    """MMDetection's `RPNHead`, which trains on every anchor of the batch and divides by a number that is fixed.

    MMDetection leaves out anchors whose cell is padding, and divides by the number of sampled anchors, counting none as
    one; Detectron2 (modeling/proposal_generator/rpn.py) keeps the first and divides by what is to be sampled.
    """
    from mmdet.models.dense_heads import RPNHead

    class Detectron2RPNHead(RPNHead):
        def get_anchors(self, *args, **kwargs):
            anchors, flags = super().get_anchors(*args, **kwargs)
            return anchors, [[level.new_ones(level.shape) for level in image] for image in flags]

        def get_targets(self, anchor_list, *args, **kwargs):
            *targets, _ = super().get_targets(anchor_list, *args, **kwargs)
            return *targets, self.train_cfg["sampler"]["num"] * len(anchor_list)

    return Detectron2RPNHead(**settings)


def _without_empty_boxes(box_head: type[nn.Module]) -> type[nn.Module]:
    """A box head of MMDetection that drops detections without area, as Detectron2's post-processing does."""

    class Detectron2BBoxHead(box_head):
        def _predict_by_feat_single(self, *args, **kwargs):
            found = super()._predict_by_feat_single(*args, **kwargs)
            return found[(found.bboxes[:, 2:] > found.bboxes[:, :2]).all(1)]

    return Detectron2BBoxHead


@MODELS.register_module(name="Detectron2BBoxHead")
def detectron2_bbox_head(**settings) -> nn.Module:
    """MMDetection's `BBoxHead` without detections of no area."""
    from mmdet.models.roi_heads.bbox_heads import BBoxHead

    return _without_empty_boxes(BBoxHead)(**settings)


@MODELS.register_module(name="Detectron2ConvFCBBoxHead")
def detectron2_conv_fc_bbox_head(**settings) -> nn.Module:
    """MMDetection's `ConvFCBBoxHead` without detections of no area."""
    from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead

    return _without_empty_boxes(ConvFCBBoxHead)(**settings)
