"""A step of MoCo-v2 as lightly's users write it, for `resim-bench bench step`; lightly is no dependency of the suite.

Source: the example in lightly's documentation, https://docs.lightly.ai/self-supervised-learning/examples/moco.html.
"""

import copy
from collections.abc import Callable

import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from pretrain import train
from pretrain.bench.step import DEVICE, samples
from pretrain.views import normalise


class MoCo(nn.Module):
    """A backbone with a projection head, and the two that follow them."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.projection_head = backbone, head
        self.backbone_momentum, self.projection_head_momentum = copy.deepcopy(backbone), copy.deepcopy(head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, images: Tensor) -> Tensor:
        """Queries."""
        return self.projection_head(self.backbone(images).flatten(start_dim=1))

    def forward_momentum(self, images: Tensor) -> Tensor:
        """Keys."""
        images, order = batch_shuffle(images)
        keys = self.projection_head_momentum(self.backbone_momentum(images).flatten(start_dim=1))
        return batch_unshuffle(keys.detach(), order)


def lightly_step(recipe_id: str, cfg_options: dict) -> Callable[[], Tensor]:
    """The step of a MoCo-v2 recipe of batch-norm groups as large as the batch: returns its loss."""
    recipe = train.load_recipe(recipe_id, cfg_options)
    settings = recipe.model
    torch.manual_seed(0)  # what is drawn, in this order, is what `suite_step` begins with
    resnet = getattr(torchvision.models, f"resnet{settings.backbone.depth}")()
    criterion = NTXentLoss(settings.temperature, memory_bank_size=(settings.queue, settings.dim)).to(DEVICE)
    width = resnet.fc.in_features
    head = MoCoProjectionHead(width, width, settings.dim)
    model = MoCo(nn.Sequential(*list(resnet.children())[:-1]), head).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), **{k: v for k, v in recipe.optimizer.items() if k != "type"})
    batch = torch.utils.data.default_collate(samples(recipe))
    query, key = (normalise(batch[name].to(DEVICE)).contiguous() for name in ("query", "key"))

    def work():
        update_momentum(model.backbone, model.backbone_momentum, m=settings.momentum)
        update_momentum(model.projection_head, model.projection_head_momentum, m=settings.momentum)
        loss = criterion(model(query), model.forward_momentum(key))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return work
