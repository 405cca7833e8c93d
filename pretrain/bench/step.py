"""How fast a training step is, against one as it is usually written, and what the regions cost on top of MoCo-v2.

All begin with views on their device.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.v2
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, MODELS
from torch import Tensor, nn
from torch.utils.data import default_collate

from pretrain import geometry, methods, train
from pretrain.encoders import Encoder, resnet
from pretrain.levels import levels_of
from pretrain.pooling import prroi_pool
from pretrain.views import MEAN, STD, crop_box, draw_pair
from resim_bench.harness import runner
from resim_bench.machine.timing import Comparison, LeftOut, apart, compare, in_turn

MOCO, RESIM_C4, RESIM_FPN = "in1k-moco-v2-200ep", "in1k-resim-c4-200ep", "in1k-resim-fpn-200ep"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHORT = {"batch": 16, "model.bn_group": 16, "model.queue": 4096}  # what two cores do in seconds; a GPU does the recipe


def rows(pairs: int = 4) -> Iterator[Comparison | LeftOut]:
    """The rows of `resim-bench bench step`, of ResNet-50, as they come."""
    gpu = DEVICE.type == "cuda"
    options = {} if gpu else SHORT
    best = "bfloat16" if gpu else "float32"
    batch = train.load_recipe(MOCO, options).batch
    rate = {"amount": batch, "unit": "pairs/s"}

    def ours(recipe, precision=best):
        return apart(suite_step, recipe, options | {"precision": precision})

    def measured(one, other):
        with one as step, other as reference:
            return in_turn(step, reference, pairs, warm_up=2)  # the first step takes the memory that is kept

    def against_plain(what, recipe):
        return compare(what, measured(ours(recipe), apart(plain_step, recipe, options)), at_least=1.8, **rate)

    yield against_plain(f"ReSim-C4 step, batch {batch}, {best}", RESIM_C4)
    yield against_plain(f"ReSim-FPN step, batch {batch}, {best}", RESIM_FPN)
    yield compare("cost of ReSim-C4 over MoCo-v2", measured(ours(RESIM_C4), ours(MOCO)), at_most=1.15)
    yield compare("cost of ReSim-FPN over MoCo-v2", measured(ours(RESIM_FPN), ours(MOCO)), at_most=1.25)
    other = "float32" if gpu else "bfloat16"
    yield compare(f"ReSim-C4 step, {other} against {best}", measured(ours(RESIM_C4, other), ours(RESIM_C4)), **rate)
    what = f"MoCo-v2 step, batch {batch}, float32, against lightly"
    try:
        from pretrain.bench.peers import lightly_step
    except ImportError as error:
        yield LeftOut(what, f"{error}: pip install lightly==1.6.0")
    else:
        rounds = measured(ours(MOCO, "float32"), apart(lightly_step, MOCO, options))
        yield compare(what, rounds, at_least=1, **rate)


def samples(recipe: Config) -> list[dict[str, Tensor]]:
    """A batch as `TwoViews` gives it: views of noise, and the crops of photographs of 500 x 375 pixels."""
    rng = np.random.default_rng(0)
    size = recipe.views.size
    found = []
    for _ in range(recipe.batch):
        query, key = torch.from_numpy(rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8))
        query_crop, key_crop = map(crop_box, draw_pair(rng, 500, 375, recipe.views))
        found.append({"query": query, "key": key, "query_crop": query_crop, "key_crop": key_crop})
    return found


def suite_step(recipe_id: str, cfg_options: dict) -> Callable[[], dict]:
    """The step that `resim-bench pretrain` makes of a batch."""
    recipe = train.load_recipe(recipe_id, cfg_options)
    if DEVICE.type == "cpu":
        runner.keep_freed_memory()
    torch.manual_seed(0)
    model = MODELS.build(train.model_config(recipe)).to(DEVICE)
    wrapper = build_optim_wrapper(model, train.optim_config(recipe))
    collate = methods.of(recipe).collation(recipe)
    batch = model.data_preprocessor(FUNCTIONS.get(collate.pop("type"))(samples(recipe), **collate))
    return lambda: model.train_step(batch, wrapper)


def plain_step(recipe_id: str, cfg_options: dict) -> Callable[[], dict]:
    """The same step as it is usually written: float32, images channels first, masks where windows do not count."""
    recipe = train.load_recipe(recipe_id, cfg_options)
    torch.manual_seed(0)
    step = PlainReSim(recipe.model, recipe.views.size).to(DEVICE, memory_format=torch.contiguous_format)
    settings = {name: value for name, value in recipe.optimizer.items() if name != "type"}
    optimizer = torch.optim.SGD(step.encoder_q.parameters(), **settings)
    batch = {name: value.to(DEVICE) for name, value in default_collate(samples(recipe)).items()}
    transform = torchvision.transforms.v2.Normalize(MEAN, STD)

    def work():
        views = (transform(batch[name].permute(0, 3, 1, 2).float().contiguous()) for name in ("query", "key"))
        losses = step(*views, batch["query_crop"], batch["key_crop"])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    return work


class PlainReSim(nn.Module):
    """MoCo-v2 with the region losses of equation (2), one process, batch norm in groups."""

    def __init__(self, model, view_size):
        super().__init__()
        trunk = resnet(**model.backbone)
        self.register_buffer("queue", F.normalize(torch.randn(model.queue, model.dim), dim=1))
        self.encoder_q = Encoder(trunk, model.dim, levels_of(model.levels.to_dict()))
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.model, self.view_size = model, view_size

    def forward(self, query, key, query_crop, key_crop):
        """The losses by name."""
        embedding, maps = self.encode(self.encoder_q, query)
        with torch.no_grad():
            for k, q in zip(self.encoder_k.parameters(), self.encoder_q.parameters(), strict=True):
                k.mul_(self.model.momentum).add_(q, alpha=1 - self.model.momentum)
            order = torch.randperm(len(key), device=key.device)
            key_embedding, key_maps = self.encode(self.encoder_k, key[order])
            back = order.argsort()
            key_embedding, key_maps = key_embedding[back], {name: m[back] for name, m in key_maps.items()}
        q, k = F.normalize(embedding, dim=1), F.normalize(key_embedding, dim=1)
        losses = {"instance": self.cross_entropy(torch.cat(((q * k).sum(1, keepdim=True), q @ self.queue.T), dim=1), 0)}
        for name, level in self.model.levels.items():
            boxes = geometry.windows(self.view_size, level.window, level.stride).to(query.device)
            key_boxes, valid = geometry.correspond(boxes, query_crop, key_crop, self.view_size)
            pooled = prroi_pool(maps[name], boxes.expand_as(key_boxes), level.map_stride)
            key_pooled = prroi_pool(key_maps[name], key_boxes, level.map_stride)
            losses[name] = self.region_loss(pooled, key_pooled, valid)
        self.queue = torch.cat((k, self.queue[: -len(k)]))
        return losses

    def encode(self, encoder, images):
        """Each batch-norm group in a pass of its own."""
        embeddings, maps = zip(*(encoder(part) for part in images.split(self.model.bn_group)), strict=True)
        return torch.cat(embeddings), {name: torch.cat([m[name] for m in maps]) for name in maps[0]}

    def cross_entropy(self, similarities, target, **options):
        """Of logits that are all there at once; `target` may be one class for all."""
        target = torch.as_tensor(target, device=similarities.device).expand(len(similarities))
        return F.cross_entropy(similarities / self.model.temperature, target, **options)

    def region_loss(self, query, key, valid):
        """Equation (2), averaged over the images that have a window."""
        query, key = F.normalize(query[valid], dim=1), F.normalize(key[valid], dim=1)
        losses = self.cross_entropy(query @ key.T, torch.arange(len(query), device=query.device), reduction="none")
        in_image = valid.sum(dim=1)
        return (losses / in_image[valid.nonzero()[:, 0]]).sum() / (in_image > 0).sum().clamp(min=1)
