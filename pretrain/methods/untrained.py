"""The untrained baseline."""

from typing import Literal

from mmengine.registry import MODELS

from pretrain.encoders import BackboneSettings, resnet
from pretrain.methods.method import Method
from pretrain.views import normalise
from resim_bench.settings import Schema


class Settings(Schema):
    """What `Random` takes of a recipe."""

    type: Literal["Random"]
    backbone: BackboneSettings


@MODELS.register_module()
class Random(Method):
    """An untrained trunk, whose running statistics `pretrain.train` may calibrate.

    Args:
        backbone: of `pretrain.encoders.resnet`.
    """

    Settings, samples, trains = Settings, "LabelledView", False

    def __init__(self, backbone):
        super().__init__()
        self.trunk = resnet(**backbone)

    def forward(self, image, mode="tensor"):
        """The features `(N, D)` of `(N, S, S, 3)` uint8 images; there is no loss."""
        return self.trunk(normalise(image))

    @classmethod
    def check(cls, recipe):
        """Its statistics are calibrated, or not: a recipe says which."""
        if recipe.calibration_batches is None:
            raise ValueError("calibration_batches is None: give a whole number of at least 0")

    @classmethod
    def sees_images(cls, recipe):
        """Where statistics are to be those of the images."""
        return recipe.calibration_batches > 0
