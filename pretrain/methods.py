"""The methods: MoCo-v2, which with levels is ReSim, and the supervised baseline."""

import copy
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from pretrain import geometry
from pretrain.distributed import all_gather, rank, world_size
from pretrain.encoders import Encoder, resnet
from pretrain.losses import dense_info_nce, dense_negatives, instance_info_nce, region_info_nce
from pretrain.pooling import prroi_pool
from resim_bench.backbone import trunk_state

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet, RGB, of 255


def normalise(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` uint8 to float32 with ImageNet's mean and standard deviation removed."""
    mean = images.new_tensor(MEAN, dtype=torch.float32).view(3, 1, 1)
    std = images.new_tensor(STD, dtype=torch.float32).view(3, 1, 1)
    return (images.float() - mean) / std


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


def encode(encoder: Encoder, images: Tensor, group: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode a batch in batch-norm groups, as if each group of `group` images were on a GPU of its own.

    Running statistics follow the first group, as those of the first GPU are the ones that are saved.
    """
    first, *others = images.split(group)
    outputs = [encoder(first)]
    with running_statistics_kept(encoder):
        outputs += [encoder(part) for part in others]
    embeddings, maps = zip(*outputs, strict=True)
    return torch.cat(embeddings), {name: torch.cat([m[name] for m in maps]) for name in maps[0]}


def transferable(model: nn.Module) -> dict[str, Tensor]:
    """What a backbone file keeps of a trained model: its trunk and, of ReSim-FPN, the query encoder's pyramid."""
    state = trunk_state(model.trunk.state_dict())
    pyramid = model.encoder_q.fpn if isinstance(model, MoCo) else None
    if pyramid is not None:
        state |= {f"fpn_{key}": value for key, value in pyramid.state_dict().items()}
    return state


@MODELS.register_module()
class MoCo(BaseModel):
    """Momentum contrast; with levels, region similarity on top of it.

    Args:
        backbone: of `pretrain.encoders.resnet`.
        view_size: side of a view in pixels.
        dim, queue, momentum, temperature: MoCo-v2's D, K, m and tau.
        levels: the region losses by the name of their map: `map_stride`, `window` and `stride` in pixels of the
            view, `dim` of the embedding, `anchor` of the grid (`query` or `overlap`), `reduction` (`image` or
            `window`) and `negatives`: `windows` (equation 2) or, as the release has them, `dense` (every position of
            all key maps) or `dense-group` (of the key maps of the window's batch-norm group, that is of one GPU).
        instance_weight: lambda of the total, sum of the regions' losses + lambda * the instance's.
        bn_group: images that share batch-norm statistics.

    Sources: He et al. 2020, Chen et al. 2020 (MoCo-v2); Xiao et al. 2021 (ReSim).
    """

    def __init__(
        self, backbone, view_size, dim, queue, momentum, temperature, levels, instance_weight=1.0, bn_group=32
    ):
        super().__init__()
        # Drawn first, and region heads last: with and without levels everything else starts the same.
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.encoder_q = Encoder(backbone, dim, levels)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.view_size, self.momentum, self.temperature = view_size, momentum, temperature
        self.levels, self.instance_weight, self.bn_group = levels, instance_weight, bn_group

    @property
    def trunk(self) -> nn.Module:
        """The network whose weights are transferred: the query encoder's."""
        return self.encoder_q.trunk

    def forward(self, query, key, query_crop, key_crop, mode="loss") -> dict[str, Tensor]:
        """Losses and contrastive accuracies of a batch.

        Args:
            query, key: `(N, 3, S, S)` uint8 views.
            query_crop, key_crop: `(N, 4)`, see `pretrain.geometry`.
        """
        precision = self.queue.dtype
        query_embedding, query_maps = encode(self.encoder_q, normalise(query).to(precision), self.bn_group)
        with torch.no_grad():
            self._follow()
            key_embedding, key_maps = self._encode_keys(normalise(key).to(precision))
        # Similarities need more digits than bf16 has.
        with torch.autocast(query.device.type, enabled=False):
            query_embedding, key_embedding = query_embedding.to(precision), key_embedding.to(precision)
            loss, top1 = instance_info_nce(query_embedding, key_embedding, self.queue, self.temperature)
            results = {"loss_instance": self.instance_weight * loss, "top1_instance": top1}
            for source, level in self.levels.items():
                maps = query_maps[source].to(precision), key_maps[source].to(precision)
                loss, top1, windows = self._region_loss(level, *maps, query_crop, key_crop)
                results |= {f"loss_{source}": loss, f"top1_{source}": top1, f"windows_{source}": windows}
        self._enqueue(key_embedding)
        return results

    def _region_loss(self, level, query_map, key_map, query_crop, key_crop):
        """Loss, accuracy and valid windows an image of one level."""
        grid = self.view_size, level["window"], level["stride"]
        if level["anchor"] == "overlap":
            query_boxes = geometry.overlap_windows(query_crop, key_crop, *grid)
        else:
            query_boxes = geometry.windows(*grid).to(query_crop.device)
        key_boxes, valid = geometry.correspond(query_boxes, query_crop, key_crop, self.view_size)
        query = prroi_pool(query_map, query_boxes.expand_as(key_boxes), level["map_stride"])
        key = prroi_pool(key_map, key_boxes, level["map_stride"])
        options = {"temperature": self.temperature, "reduction": level["reduction"], "with_accuracy": True}
        if level["negatives"] == "windows":
            loss, top1 = region_info_nce(query, key, valid, gather=True, **options)
        elif level["negatives"] == "dense":
            loss, top1 = dense_info_nce(query, key, valid, dense_negatives(key_map), gather=True, **options)
        else:
            negatives = torch.stack([dense_negatives(group) for group in key_map.split(self.bn_group)])
            loss, top1 = dense_info_nce(query, key, valid, negatives, **options)
        return loss, top1, valid.sum() / len(valid)

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
        first, *others = normalise(image).split(self.bn_group)
        features = [self.trunk(first)]
        with running_statistics_kept(self.trunk):
            features += [self.trunk(part) for part in others]
        scores = self.classifier(torch.cat(features))
        return {"loss": F.cross_entropy(scores, label), "top1": (scores.argmax(dim=1) == label).float().mean()}


@MODELS.register_module()
class Random(nn.Module):
    """An untrained trunk; `pretrain.train` calibrates its running statistics.

    Args:
        backbone: of `pretrain.encoders.resnet`.
    """

    def __init__(self, backbone):
        super().__init__()
        self.trunk = resnet(**backbone)
