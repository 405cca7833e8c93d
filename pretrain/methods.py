"""The methods: MoCo-v2, which with levels is ReSim, and the supervised baseline."""

import copy
import functools
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from pydantic import model_validator
from torch import Tensor, nn

from pretrain.distributed import all_gather, rank, world_size
from pretrain.encoders import HEADS, PYRAMID, BackboneSettings, Encoder, resnet
from pretrain.geometry import Windows, permuted
from pretrain.losses import dense_info_nce, dense_negatives, instance_info_nce, region_info_nce
from pretrain.pooling import prroi_pool
from resim_bench.backbone import trunk_state
from resim_bench.settings import AtLeast0, Positive, Schema, Share, Whole, one_of

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet, RGB, of 255


@functools.cache  # a copy to the GPU in each step would make the host wait
def _mean_and_std(device: torch.device, width: int) -> tuple[Tensor, Tensor]:
    """Those of the channels of each pixel of an image's row, `(width * 3,)`: long rows vectorise, pixels do not."""
    mean, std = torch.tensor((MEAN, STD), device=device).repeat(1, width)
    return mean, std


def normalise(images: Tensor) -> Tensor:
    """`(N, H, W, 3)` uint8 to `(N, 3, H, W)` float32, channels last, with ImageNet's mean and deviation removed."""
    mean, std = _mean_and_std(images.device, images.shape[2])
    return images.flatten(2).float().sub_(mean).div_(std).view(images.shape).permute(0, 3, 1, 2)


@contextmanager
def running_statistics_kept(module: nn.Module):
    """Inside, batch norm uses the batch's statistics but leaves the running ones as they are, bit for bit."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for m, (momentum, batches) in zip(norms, kept, strict=True):
            m.momentum, m.num_batches_tracked = momentum, batches


def in_groups(module: nn.Module, images: Tensor, group: int, follow: bool = True) -> list:
    """The module's output for each batch-norm group, as if each `group` images were on a GPU of their own.

    Running statistics follow the first group, as those of the first GPU are the ones that are saved; without `follow`
    they stay as they are.
    """
    parts = list(images.split(group))
    outputs = [module(parts.pop(0))] if follow else []
    with running_statistics_kept(module):
        return outputs + [module(part) for part in parts]


def encode(encoder: Encoder, images: Tensor, group: int, follow: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode a batch `in_groups`."""
    embeddings, maps = zip(*in_groups(encoder, images, group, follow), strict=True)
    return torch.cat(embeddings), {name: torch.cat([m[name] for m in maps]) for name in maps[0]}


def transferable(model: nn.Module) -> dict[str, Tensor]:
    """What a backbone file keeps of a trained model: its trunk and, of ReSim-FPN, the query encoder's pyramid."""
    state = trunk_state(model.trunk.state_dict())
    pyramid = model.encoder_q.fpn if isinstance(model, MoCo) else None
    if pyramid is not None:
        state |= {f"fpn_{key}": value for key, value in pyramid.state_dict().items()}
    return state


class Keys(NamedTuple):
    """What the queries of a batch of N pairs are compared with; nothing carries a gradient.

    Attributes:
        embedding: `(N, D)`.
        regions: of each level the pooled features `(N, R, D)`.
        negatives: of each level with dense negatives these, `(M, D)` or `(G, M, D)`; None of others.
    """

    embedding: Tensor
    regions: dict[str, Tensor]
    negatives: dict[str, Tensor | None]


class LevelSettings(Schema):
    """A region loss, see `MoCo`."""

    map_stride: Whole
    window: Whole
    stride: Whole
    dim: Whole
    anchor: one_of("query", "overlap", "view")
    negatives: one_of("windows", "dense", "dense-group")
    reduction: one_of("image", "window", "group")
    border: one_of("closed", "open") = "closed"
    positives: one_of("same", "permuted") = "same"


class C4Settings(LevelSettings):
    """A region loss on C4, which has a region head of its own."""

    head: one_of(*HEADS) = "conv3x3"


class LevelsSettings(Schema):
    """The region losses by the name of their map."""

    c4: C4Settings = None
    p4: LevelSettings = None
    p3: LevelSettings = None

    def given(self) -> dict[str, LevelSettings]:
        """Those that there are."""
        return {source: level for source, level in self if level is not None}


class MoCoSettings(Schema):
    """What `MoCo` takes of a recipe."""

    type: Literal["MoCo"]
    backbone: BackboneSettings
    dim: Whole
    queue: Whole
    momentum: Share
    temperature: Positive
    levels: LevelsSettings
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


@MODELS.register_module()
class MoCo(BaseModel):
    """Momentum contrast; with levels, region similarity on top of it.

    Args:
        backbone: of `pretrain.encoders.resnet`.
        dim, queue, momentum, temperature: MoCo-v2's D, K, m and tau.
        levels: the region losses by the name of their map: `map_stride`, `window` and `stride` in pixels of the
            view, `dim` of the embedding, `anchor` of the grid (`query` or `overlap`), `reduction` (`image`,
            `window` or `group`), `border` (whether a window may reach the key view's right and lower border, `closed`,
            or has to end before, `open`) and `negatives`: `windows` (equation 2) or, as the release has them, `dense`
            (every position of all key maps) or `dense-group` (of those of the window's batch-norm group, of one GPU).
            For controls: `anchor="view"` has one window, the whole of each view; `positives="permuted"` compares each
            window with another of its image; `head` (of `pretrain.encoders.HEADS`) replaces the region head of C4.
        instance_weight: lambda of the total, sum of the regions' losses + lambda * the instance's.
        bn_group: images that share batch-norm statistics.
        micro_batch: queries that are encoded at a time in training, whole batch-norm groups; None for all. The keys of
            the whole batch come first and carry no gradient, so that the loss is a sum over queries: their gradients
            add up to those of the whole batch, in the memory of one part.

    Sources: He et al. 2020, Chen et al. 2020 (MoCo-v2); Xiao et al. 2021 (ReSim).
    """

    def __init__(
        self, backbone, dim, queue, momentum, temperature, levels, instance_weight=1.0, bn_group=32, micro_batch=None
    ):
        super().__init__(data_preprocessor=dict(type="BaseDataPreprocessor", non_blocking=True))
        # The trunk is drawn first, as an untrained one is, and region heads last: what methods share starts the same.
        trunk = resnet(**backbone)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.encoder_q = Encoder(trunk, dim, levels)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.momentum, self.temperature, self.instance_weight = momentum, temperature, instance_weight
        self.levels, self.bn_group, self.micro_batch = levels, bn_group, micro_batch

    @property
    def trunk(self) -> nn.Module:
        """The network whose weights are transferred: the query encoder's."""
        return self.encoder_q.trunk

    def forward(self, query, key, windows, mode="loss") -> dict[str, Tensor]:
        """Losses and contrastive accuracies of a batch.

        Args:
            query, key: `(N, S, S, 3)` uint8 views.
            windows: `pretrain.geometry.Windows` of each level.
        """
        keys = self._keys(key, windows)
        results = self._compare(query, keys, windows)
        self._enqueue(keys.embedding)
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
        self._enqueue(keys.embedding)
        return logs

    @torch.no_grad()
    def _keys(self, key: Tensor, windows: dict[str, Windows]) -> Keys:
        """Let the key encoder follow, and encode the key views."""
        self._follow()
        precision = self.queue.dtype
        embedding, maps = self._encode_keys(normalise(key).to(precision))
        with self._full_precision(key):
            maps = {source: m.to(precision) for source, m in maps.items()}
            regions = {
                source: prroi_pool(maps[source], windows[source].key_boxes, level["map_stride"])
                for source, level in self.levels.items()
            }
            regions |= {
                source: permuted(regions[source], windows[source].valid)
                for source, level in self.levels.items()
                if level.get("positives") == "permuted"
            }
            negatives = {source: self._negatives(level, maps[source]) for source, level in self.levels.items()}
        return Keys(embedding.to(precision), regions, negatives)

    def _negatives(self, level: dict, key_map: Tensor) -> Tensor | None:
        """The dense negatives of a level, if it has them."""
        if level["negatives"] == "windows":
            return None
        if level["negatives"] == "dense":
            return dense_negatives(key_map)
        return torch.stack([dense_negatives(group) for group in key_map.split(self.bn_group)])

    def _compare(self, query: Tensor, keys: Keys, windows: dict[str, Windows], first: int = 0) -> dict[str, Tensor]:
        """Losses and accuracies of the batch's queries from image `first` on: their share in those of the batch."""
        precision = self.queue.dtype
        share = len(query) / len(keys.embedding)
        part = slice(first, first + len(query))
        embedding, maps = encode(self.encoder_q, normalise(query).to(precision), self.bn_group, follow=first == 0)
        with self._full_precision(query):
            own = keys.embedding[part]
            loss, top1 = instance_info_nce(embedding.to(precision), own, self.queue, self.temperature)
            results = {"loss_instance": self.instance_weight * share * loss, "top1_instance": share * top1}
            for source, level in self.levels.items():
                pooled = prroi_pool(maps[source].to(precision), windows[source].query_boxes[part], level["map_stride"])
                loss, top1 = self._region_loss(level, pooled, keys, source, windows[source], first)
                valid = windows[source].valid
                results[f"loss_{source}"], results[f"top1_{source}"] = loss, top1
                results[f"windows_{source}"] = valid[part].sum() / len(valid)
        return results

    def _region_loss(self, level, query, keys, source, windows, first):
        """Loss and accuracy of one level."""
        options = {
            "temperature": self.temperature,
            "reduction": level["reduction"],
            "gather": level["negatives"] != "dense-group",
            "rows": windows.rows,
            "first": first,
            "with_accuracy": True,
        }
        if level["negatives"] == "windows":
            return region_info_nce(query, keys.regions[source], windows.valid, **options)
        key = keys.regions[source]
        return dense_info_nce(query, key, windows.valid, keys.negatives[source], **options)

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
        """Encode keys in batch-norm groups of shuffled images, so that statistics give no positive away."""
        everyone = all_gather(images)
        order = torch.randperm(len(everyone), device=images.device)
        if world_size() > 1:
            torch.distributed.broadcast(order, src=0)
        own = slice(rank() * len(images), (rank() + 1) * len(images))
        embedding, maps = encode(self.encoder_k, everyone[order[own]], self.bn_group)
        place = order.argsort()[own]
        return all_gather(embedding)[place], {name: all_gather(m)[place] for name, m in maps.items()}

    def _enqueue(self, keys: Tensor) -> None:
        """The keys of all processes enter the queue; as many of the oldest leave."""
        keys = all_gather(F.normalize(keys, dim=1))
        self.queue = torch.cat((keys, self.queue[: -len(keys)]))


class SupervisedSettings(Schema):
    """What `Supervised` takes of a recipe."""

    type: Literal["Supervised"]
    backbone: BackboneSettings
    num_classes: Whole
    bn_group: Whole = 32


@MODELS.register_module()
class Supervised(BaseModel):
    """Image classification with cross-entropy.

    Args:
        backbone: of `pretrain.encoders.resnet`.
        num_classes: classes of the data set.
        bn_group: images that share batch-norm statistics.
    """

    def __init__(self, backbone, num_classes, bn_group=32):
        super().__init__()
        self.trunk = resnet(**backbone)
        last = self.trunk.layer4[-1]
        self.classifier = nn.Linear(last.bn2.num_features * last.expansion, num_classes)
        self.bn_group = bn_group

    def forward(self, image, label, mode="loss") -> dict[str, Tensor]:
        """Loss and accuracy of `(N, 3, S, S)` uint8 images with `(N,)` class numbers."""
        scores = self.classifier(torch.cat(in_groups(self.trunk, normalise(image), self.bn_group)))
        return {"loss": F.cross_entropy(scores, label), "top1": (scores.argmax(dim=1) == label).float().mean()}


class RandomSettings(Schema):
    """What `Random` takes of a recipe."""

    type: Literal["Random"]
    backbone: BackboneSettings


@MODELS.register_module()
class Random(nn.Module):
    """An untrained trunk; `pretrain.train` calibrates its running statistics.

    Args:
        backbone: of `pretrain.encoders.resnet`.
    """

    def __init__(self, backbone):
        super().__init__()
        self.trunk = resnet(**backbone)
