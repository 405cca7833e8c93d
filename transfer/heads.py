"""Detectron2's heads where MMDetection's differ: res5 with one more norm, and how the mask predictor starts.

Importing mmdet takes seconds and only building a model needs it: it is imported there.
"""

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn


@MODELS.register_module()
class ResLayerExtraNorm(BaseModule):
    """A ResNet's layer4 for `shared_head`, followed by a norm of the same kind and by no ReLU.

    The extra norm starts as the identity up to normalisation (gamma 1, beta 0) and always trains. MoCo
    `detection/detectron2` (`Res5ROIHeadsExtraNorm`); reference section 1.1, "extra norm".

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
