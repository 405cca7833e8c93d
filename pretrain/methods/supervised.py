"""The supervised baseline."""

from typing import Literal

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from pretrain.batchnorm import in_groups
from pretrain.encoders import BackboneSettings, resnet
from pretrain.methods.method import Method
from pretrain.views import normalise
from resim_bench.settings import Schema, Whole


class Settings(Schema):
    """What `Supervised` takes of a recipe."""

    type: Literal["Supervised"]
    backbone: BackboneSettings
    num_classes: Whole
    bn_group: Whole = 32


@MODELS.register_module()
class Supervised(Method):
    """Image classification with cross-entropy.

    Args:
        backbone: of `pretrain.encoders.resnet`.
        num_classes: classes of the data set.
        bn_group: images that share batch-norm statistics.
    """

    Settings, samples = Settings, "LabelledView"

    def __init__(self, backbone, num_classes, bn_group=32):
        super().__init__()
        self.trunk = in_groups(resnet(**backbone), bn_group)
        last = self.trunk.layer4[-1]
        self.classifier = nn.Linear(last.bn2.num_features * last.expansion, num_classes)

    @classmethod
    def suit(cls, model, facts):
        """As many classes as the images have."""
        model.num_classes = facts["classes"]

    def forward(self, image, label, mode="loss") -> dict[str, Tensor]:
        """Loss and accuracy of `(N, S, S, 3)` uint8 images with `(N,)` class numbers."""
        scores = self.classifier(self.trunk(normalise(image)))
        return {"loss": F.cross_entropy(scores, label), "top1": (scores.argmax(dim=1) == label).float().mean()}
