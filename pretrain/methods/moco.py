"""MoCo-v2, which with levels is ReSim."""

import copy
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from pydantic import model_validator
from torch import Tensor, nn

from pretrain.batchnorm import in_groups
from pretrain.distributed import all_gather, rank, world_size
from pretrain.encoders import PYRAMID, BackboneSettings, Encoder, resnet
from pretrain.geometry import Windows, permuted
from pretrain.levels import Level, Levels, levels_of, stated
from pretrain.losses import info_nce
from pretrain.methods.method import Method
from pretrain.pooling import prroi_pool
from pretrain.regions import dense_negatives, region_loss
from pretrain.views import normalise
from resim_bench.harness.batchnorm import running_statistics_kept
from resim_bench.settings import AtLeast0, Positive, Schema, Share, Whole


class Settings(Schema):
    """What `MoCo` takes of a recipe."""

    type: Literal["MoCo"]
    backbone: BackboneSettings
    dim: Whole
    queue: Whole
    momentum: Share
    temperature: Positive
    levels: Levels
    instance_weight: AtLeast0 = 1.0
    bn_group: Whole = 32

    @model_validator(mode="after")
    def _goes_together(self):
        levels = self.levels.given()
        pyramid = [levels[source].dim for source in PYRAMID if source in levels]
        # Each needs the other: a convolution without gradient would stop a distributed run.
        if pyramid and (len(pyramid) < len(PYRAMID) or len(set(pyramid)) > 1):
            raise ValueError("model.levels of a pyramid are both p4 and p3, of the same dim: give both")
        strides = {"c4": self.backbone.stride(3), "p4": self.backbone.stride(3), "p3": self.backbone.stride(2)}
        for source, level in levels.items():
            if level.map_stride != strides[source]:
                raise ValueError(
                    f"model.levels.{source}.map_stride is {level.map_stride}: give {strides[source]}, "
                    "the stride that model.backbone.strides make of that map"
                )
        return self


class Keys(NamedTuple):
    """What the queries of a batch of N pairs are compared with; nothing carries a gradient.

    Attributes:
        embedding: `(N, D)`.
        local: by a name of the method's own, what its queries' maps are compared with; of each level of ReSim the
            pooled features `(N, R, D)` and, where its negatives are dense, these, `(M, D)` or `(G, M, D)`.
    """

    embedding: Tensor
    local: dict


@MODELS.register_module()
class MoCo(Method):
    """Momentum contrast; with levels, region similarity on top of it.

    Args:
        backbone: of `pretrain.encoders.resnet`.
        dim, queue, momentum, temperature: MoCo-v2's D, K, m and tau.
        levels: the region losses by the name of their map, settings of `pretrain.levels.Level`.
        instance_weight: lambda of the total, sum of the regions' losses + lambda * the instance's.
        bn_group: images that share batch-norm statistics.
        micro_batch: queries that are encoded at a time in training, whole batch-norm groups; None for all. The keys of
            the whole batch come first and carry no gradient, so that the loss is a sum over queries: their gradients
            add up to those of the whole batch, in the memory of one part.

    Sources: He et al. 2020, Chen et al. 2020 (MoCo-v2); Xiao et al. 2021 (ReSim).
    """

    Settings, in_parts = Settings, True

    def __init__(
        self, backbone, dim, queue, momentum, temperature, levels, instance_weight=1.0, bn_group=32, micro_batch=None
    ):
        super().__init__(data_preprocessor=dict(type="BaseDataPreprocessor", non_blocking=True))
        self.levels = levels_of(levels)
        # The trunk is drawn first, as an untrained one is, and region heads last: what methods share starts the same.
        trunk = in_groups(resnet(**backbone), bn_group)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.encoder_q = self.encoder(trunk, dim)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.momentum, self.temperature, self.instance_weight = momentum, temperature, instance_weight
        self.bn_group, self.micro_batch = bn_group, micro_batch

    @classmethod
    def complete(cls, model):
        """With the defaults of its settings and of its levels."""
        model = dict(model)
        for name in ("instance_weight", "bn_group"):
            model.setdefault(name, Settings.model_fields[name].default)
        levels = model.get("levels")
        return model | {"levels": stated(levels)} if isinstance(levels, dict) else model

    @classmethod
    def check(cls, recipe):
        """Queue and batch, windows and views."""
        if recipe.model.queue % recipe.batch:
            raise ValueError(
                f"the queue of {recipe.model.queue} is not a multiple of the batch of {recipe.batch}: "
                "change model.queue or batch"
            )
        size, levels = recipe.views.size, recipe.model.levels.given()
        for source, level in levels.items():
            if level.window >= size:
                raise ValueError(
                    f"model.levels.{source}.window of {level.window} px does not fit a view of {size} px: "
                    "set it smaller, or views.size larger"
                )
            cells = -(-size // level.map_stride)
            if level.negatives != "windows" and cells < 3:
                raise ValueError(
                    f"model.levels.{source}.negatives={level.negatives} averages 3 x 3 cells, and a view of {size} px "
                    f"has {cells} x {cells}: set views.size larger"
                )
        if levels and recipe.views.flip != "shared":
            raise ValueError('a recipe with levels needs views.flip="shared": regions correspond only under one flip')

    @classmethod
    def collation(cls, recipe):
        """Batches with the windows of each level."""
        levels, bn_group = recipe.model.levels.to_dict(), recipe.model.bn_group
        return {"type": "collate_pairs", "view_size": recipe.views.size, "levels": levels, "bn_group": bn_group}

    @property
    def trunk(self) -> nn.Module:
        """The query encoder's."""
        return self.encoder_q.trunk

    def transferred(self):
        """The trunk and, of ReSim-FPN, the query encoder's pyramid."""
        pyramid = self.encoder_q.fpn.state_dict() if self.encoder_q.fpn is not None else {}
        return super().transferred() | {f"fpn_{key}": value for key, value in pyramid.items()}

    def encoder(self, trunk: nn.Module, dim: int) -> nn.Module:
        """What embeds images: `(N, 3, S, S)` to an embedding `(N, D)` and the maps that are compared, by name."""
        return Encoder(trunk, dim, self.levels)

    def forward(self, query, key, windows, mode="loss") -> dict[str, Tensor]:
        """Losses and contrastive accuracies of a batch.

        Args:
            query, key: `(N, S, S, 3)` uint8 views.
            windows: `pretrain.geometry.Windows` of each level.
        """
        keys = self._keys(key, windows)
        results = self._compare(query, keys, windows)
        self.enqueue(keys)
        return results

    def train_step(self, data, optim_wrapper) -> dict[str, Tensor]:
        """One step of the optimiser, the queries in parts where `micro_batch` asks for it."""
        if not self.micro_batch:
            return super().train_step(data, optim_wrapper)
        batch = self.data_preprocessor(data, True)
        with optim_wrapper.optim_context(self):
            keys = self._keys(batch["key"], batch["windows"])
        logs: dict[str, Tensor] = {}
        for first in range(0, len(batch["query"]), self.micro_batch):
            with optim_wrapper.optim_context(self):
                part = batch["query"][first : first + self.micro_batch]
                loss, shares = self.parse_losses(self._compare(part, keys, batch["windows"], first))
            optim_wrapper.backward(loss)
            logs = {name: logs.get(name, 0) + share.detach() for name, share in shares.items()}
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        self.enqueue(keys)
        return logs

    @torch.no_grad()
    def _keys(self, key: Tensor, windows: dict[str, Windows]) -> Keys:
        """Let the key encoder follow, and encode the key views."""
        self._follow()
        precision = self.queue.dtype
        embedding, maps = self._encode_keys(key)
        with self._full_precision(key):
            local = self.local_keys({name: m.to(precision) for name, m in maps.items()}, windows)
        return Keys(embedding.to(precision), local)

    def _compare(self, query: Tensor, keys: Keys, windows: dict[str, Windows], first: int = 0) -> dict[str, Tensor]:
        """Losses and accuracies of the batch's queries from image `first` on: their share in those of the batch."""
        precision = self.queue.dtype
        share = len(query) / len(keys.embedding)
        with nullcontext() if first == 0 else running_statistics_kept(self.encoder_q):
            embedding, maps = self.encoder_q(normalise(query).to(precision))
        with self._full_precision(query):
            own = keys.embedding[first : first + len(query)]
            pairs = F.normalize(embedding.to(precision), dim=1), F.normalize(own, dim=1)
            losses, right = info_nce(*pairs, self.queue, self.temperature)
            results = {
                "loss_instance": self.instance_weight * share * losses.mean(),
                "top1_instance": share * right.float().mean(),
            }
            maps = {name: m.to(precision) for name, m in maps.items()}
            return results | self.local_losses(maps, keys, windows, first)

    def local_keys(self, maps: dict[str, Tensor], windows: dict[str, Windows]) -> dict:
        """What the maps of queries are compared with, of the key views' maps."""
        local: dict = {}
        for source, level in self.levels.items():
            regions = prroi_pool(maps[source], windows[source].key_boxes, level.map_stride)
            if level.positives == "permuted":
                regions = permuted(regions, windows[source].valid)
            local[source] = regions, self._negatives(level, maps[source])
        return local

    def _negatives(self, level: Level, key_map: Tensor) -> Tensor | None:
        """The dense negatives of a level, if it has them."""
        if level.negatives == "windows":
            return None
        if level.negatives == "dense":
            return all_gather(dense_negatives(key_map))
        return torch.stack([dense_negatives(group) for group in key_map.split(self.bn_group)])

    def local_losses(
        self, maps: dict[str, Tensor], keys: Keys, windows: dict[str, Windows], first: int
    ) -> dict[str, Tensor]:
        """Losses and accuracies of the maps of the queries from image `first` on, their share in those of the batch."""
        results = {}
        for source, level in self.levels.items():
            (regions, negatives), (boxes, _, valid, rows) = keys.local[source], windows[source]
            part = slice(first, first + len(maps[source]))
            pooled = prroi_pool(maps[source], boxes[part], level.map_stride)
            results[f"loss_{source}"], results[f"top1_{source}"] = region_loss(
                pooled, regions, valid, self.temperature, negatives, level.reduction, rows, first
            )
            results[f"windows_{source}"] = valid[part].sum() / len(valid)
        return results

    @staticmethod
    def _full_precision(images: Tensor):
        """Similarities need more digits than bf16 has."""
        return torch.autocast(images.device.type, enabled=False)

    def _follow(self) -> None:
        """Move the key encoder's parameters towards the query encoder's: k <- m k + (1 - m) q."""
        keys, queries = list(self.encoder_k.parameters()), list(self.encoder_q.parameters())
        torch._foreach_mul_(keys, self.momentum)
        torch._foreach_add_(keys, queries, alpha=1 - self.momentum)

    def _encode_keys(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode key views in batch-norm groups of shuffled images, so that statistics give no positive away."""
        everyone = all_gather(images)  # as bytes, a quarter of what they are once they are normalised
        order = torch.randperm(len(everyone), device=images.device)
        if world_size() > 1:
            torch.distributed.broadcast(order, src=0)
        own = slice(rank() * len(images), (rank() + 1) * len(images))
        mine = normalise(everyone[order[own]]).to(self.queue.dtype)
        embedding, maps = self.encoder_k(mine)
        place = order.argsort()[own]
        return all_gather(embedding)[place], {name: all_gather(m)[place] for name, m in maps.items()}

    def enqueue(self, keys: Keys) -> None:
        """A step's keys enter the queue."""
        self.queue = renewed(self.queue, keys.embedding)


def renewed(queue: Tensor, keys: Tensor) -> Tensor:
    """The queue with the keys of all processes in front; as many of the oldest have left."""
    keys = all_gather(F.normalize(keys, dim=1))
    return torch.cat((keys, queue[: -len(keys)]))
