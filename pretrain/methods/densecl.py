"""DenseCL: MoCo-v2 with a second contrast, of each cell of C5 with the cell of the other view that is most like it."""

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from pydantic import model_validator
from torch import Tensor, nn

from pretrain.encoders import Encoder, trunk_maps
from pretrain.losses import info_nce_in_chunks
from pretrain.methods import moco
from resim_bench.settings import AtLeast0


class Settings(moco.Settings):
    """What `DenseCL` takes of a recipe."""

    type: Literal["DenseCL"]
    dense_weight: AtLeast0 = 0.5

    @model_validator(mode="after")
    def _has_no_levels(self):
        if self.levels.given():
            raise ValueError("model.levels are ReSim's: leave them out for DenseCL")
        return self


class DenseEncoder(Encoder):
    """MoCo-v2's encoder with a head for the cells: two 1 x 1 convolutions and a ReLU between them."""

    def __init__(self, trunk: nn.Module, dim: int):
        super().__init__(trunk, dim, levels={})
        width = self.head[0].in_features
        self.dense_head = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, dim, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`(N, 3, S, S)` to the embedding `(N, D)`, C5 and its cells' embeddings `(N, D, H, W)`."""
        c5 = trunk_maps(self.trunk, images)["c5"]
        return self.head(c5.mean(dim=(2, 3))), {"c5": c5, "dense": self.dense_head(c5)}


@MODELS.register_module()
class DenseCL(moco.MoCo):
    """Dense contrastive learning.

    Args:
        dense_weight: of the cells' loss; that of the instance's is `instance_weight`.
        settings: as `MoCo` has them.

    Source: Wang et al. 2021; the authors' code, docs/sources.md.
    """

    Settings = Settings

    def __init__(self, dense_weight=0.5, **settings):
        super().__init__(**settings)
        self.dense_weight = dense_weight
        self.register_buffer("dense_queue", F.normalize(torch.randn_like(self.queue), dim=1))

    def encoder(self, trunk, dim):
        """With a head for the cells."""
        return DenseEncoder(trunk, dim)

    def local_keys(self, maps, windows):
        """The cells of C5, `(N, C, H * W)` of unit length, and their embeddings, `(N, H * W, D)`."""
        return {"c5": _cells(maps["c5"]), "dense": maps["dense"].flatten(2).transpose(1, 2)}

    def local_losses(self, maps, keys, windows, first):
        """Each cell of the queries against its match and the queue of averaged cells."""
        part = slice(first, first + len(maps["c5"]))
        similar = _cells(maps["c5"].detach()).transpose(1, 2) @ keys.local["c5"][part]
        query, match = maps["dense"].flatten(2).transpose(1, 2), similar.argmax(dim=2)
        positive = keys.local["dense"][part].gather(1, match[..., None].expand_as(query))
        losses, right = info_nce_in_chunks(
            F.normalize(query.flatten(0, 1), dim=1),
            F.normalize(positive.flatten(0, 1), dim=1),
            self.dense_queue,
            self.temperature,
        )
        share = len(query) / len(keys.embedding)
        return {"loss_dense": self.dense_weight * share * losses.mean(), "top1_dense": share * right.mean()}

    def enqueue(self, keys):
        """The embeddings of the images enter one queue, the means of their cells' the other."""
        super().enqueue(keys)
        self.dense_queue = moco.renewed(self.dense_queue, keys.local["dense"].mean(dim=1))


def _cells(c5: Tensor) -> Tensor:
    return F.normalize(c5.flatten(2), dim=1)
