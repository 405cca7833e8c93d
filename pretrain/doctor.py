"""What `resim-bench doctor` looks at in pre-training: losses, processes, loaders, a short run, memory."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, MODELS
from torch import Tensor

from pretrain import estimate, methods, regions, train
from pretrain.bench.ops import pool_each_box
from pretrain.bench.step import samples
from pretrain.data import TwoViews
from pretrain.losses import info_nce
from pretrain.pooling import prroi_pool
from resim_bench import backbone, experiments
from resim_bench.data import photographs
from resim_bench.harness import launch
from resim_bench.harness.runner import loader_workers
from resim_bench.machine import hardware
from resim_bench.machine.doctor import NOT_READY, READY, Check, Finding, leave_out, together

RECIPE, FASTEST = "in100-resim-c4", "in100-moco-v2"
KERNEL = "report it with `resim-bench env`: this device computes something else than the suite means"
SHORT = {"log_interval": 1, "max_iters": hardware.ITERATIONS, "workers": 2}
TINY = {  # a step of RECIPE in a moment
    "model.backbone.depth": 18,
    "model.dim": 16,
    "model.levels.c4.dim": 16,
    "model.levels.c4.window": 32,
    "model.levels.c4.stride": 16,
    "views.size": 96,
    "precision": "float32",
}


def trained(folder: Path) -> Path:
    """The backbone that the short run leaves in the doctor's folder."""
    return backbone.path(folder / "pretrain" / "whole", RECIPE, seed=0)


def checks(folder: Path) -> Iterator[Check]:
    """Of this room; `folder` is the doctor's."""
    count = hardware.gpus()
    for device in hardware.devices():
        of = f", {hardware.name(device)}"
        yield from (Check(f"{what}{of}", operator, (what, device), KERNEL) for what in OPERATORS)
    yield Check("a step, repeated", repeated, (hardware.devices()[0],), KERNEL)
    if count == 1:
        yield Check("a step of several processes against one", leave_out, (hardware.ONE_GPU,))
    else:
        yield Check("a step of several processes against one", processes, (count or 2,), KERNEL, 120)
    recipe = train.load_recipe(RECIPE)
    remedy = "give the container more: --shm-size 8g, or `workers=0`"
    yield Check("shared memory for loaders", hardware.shared_memory, (shared_bytes(recipe),), remedy)
    remedy = "take a machine of more cores a GPU, or more `workers` where there are some"
    yield Check("decoding and two views", views, (folder / "views", count), remedy)
    remedy = "`resim-bench mini` is the same made small, and says more; docs/runs.md has what a run survives"
    yield Check(f"{RECIPE}, short", short, (folder / "pretrain", count), remedy, 240)
    remedy = "`micro_batch` or `precision=bfloat16` (docs/settings.md), or more GPUs"
    yield from hardware.memories("pretrain", steps, estimate.measure, "batch", remedy)


def operator(what: str, device: str) -> Finding:
    """Values and gradients of one of `OPERATORS` in float32 on the device against float64 on the CPU."""
    error = OPERATORS[what](device)
    return Finding(READY if error <= 1e-4 else NOT_READY, f"{error:.0e} from float64")


def _pooling(device: str) -> float:
    """Against each box on its own."""
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 16, 14, 14, generator=rng)
    corner = torch.rand(2, 9, 2, generator=rng) * 100
    boxes = torch.cat((corner, corner + 20 + 100 * torch.rand(2, 9, 2, generator=rng)), dim=2)

    def pool(features):
        pooling = pool_each_box if features.dtype == torch.float64 else prroi_pool
        return pooling(features, boxes.to(features), 16)

    return hardware.against_float64(pool, [features], device)


def _region_loss(device: str) -> float:
    """Equation (2), whose negatives are the other windows, and the release's, whose negatives are dense."""
    rng = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 9, 16, generator=rng)
    valid, negatives = torch.arange(36).view(4, 9) % 5 > 0, torch.randn(2, 50, 16, generator=rng)

    def loss(query, dense):
        return regions.region_loss(
            query, key.to(query), valid.to(query.device), 0.2, negatives.to(query) if dense else None, "image"
        )[0]

    return max(hardware.against_float64(partial(loss, dense=dense), [query], device) for dense in (False, True))


def _instance_loss(device: str) -> float:
    """Of MoCo: a positive, and a queue of negatives."""
    rng = torch.Generator().manual_seed(0)
    query, key, queue = (torch.nn.functional.normalize(torch.randn(n, 128, generator=rng), dim=1) for n in (8, 8, 512))
    return hardware.against_float64(lambda q: info_nce(q, key.to(q), queue.to(q), 0.2)[0], [query], device)


OPERATORS = {"Precise RoI pooling": _pooling, "region loss": _region_loss, "instance loss": _instance_loss}


def _step(images: int, part: slice, device: str, dtype: torch.dtype) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """The model after a step of a tiny ReSim-C4 on a part of so many images, in groups of 4; and its losses."""
    options = TINY | {"batch": images, "model.queue": 4 * images, "model.bn_group": 4}
    recipe = train.load_recipe(RECIPE, options)
    torch.manual_seed(0)
    model = MODELS.build(train.model_config(recipe)).to(device, dtype)
    collate = methods.of(recipe).collation(recipe)
    batch = FUNCTIONS.get(collate.pop("type"))(samples(recipe)[part], **collate)
    torch.manual_seed(1)
    results = model(**model.data_preprocessor(batch, True))
    losses = {name: value for name, value in results.items() if name.startswith("loss")}
    sum(losses.values()).backward()
    return model, losses


def _numbers(model, losses) -> dict[str, Tensor]:
    """Losses and gradients by name."""
    gradients = {name: p.grad for name, p in model.encoder_q.named_parameters()}
    return {name: value.detach() for name, value in losses.items()} | gradients


def repeated(device: str) -> Finding:
    """A step twice, in float32."""
    with hardware.products_in("float32"):
        return hardware.twice(lambda: _numbers(*_step(8, slice(None), device, torch.float32)))


def processes(count: int) -> Finding:
    """A step of so many processes, each with a group of the batch, against one process with all of it, in float64."""
    ours = together(count, _part_of_a_step)[0]
    model, losses = _step(4 * count, slice(None), hardware.devices()[0], torch.float64)
    one = _state(model, _numbers(model, losses))
    error = hardware.apart([torch.from_numpy(ours[key]) for key in one], [torch.from_numpy(one[key]) for key in one])
    return Finding(READY if error <= 1e-6 else NOT_READY, f"{count} processes, {error:.0e} from one, in float64")


def _part_of_a_step() -> dict[str, np.ndarray]:
    """Of a process that `together` has started: the mean over processes, as DistributedDataParallel takes it."""
    launch.join_processes("pytorch")
    rank, count = dist.get_rank(), dist.get_world_size()
    model, losses = _step(4 * count, slice(4 * rank, 4 * rank + 4), hardware.own_device(), torch.float64)
    numbers = _numbers(model, losses)
    for value in numbers.values():
        dist.all_reduce(value)
        value /= count
    return _state(model, numbers)


def _state(model, numbers) -> dict[str, np.ndarray]:
    """With the queue, and the running statistics of the first group."""
    buffers = {name: value for name, value in model.encoder_q.named_buffers() if "running" in name}
    return {name: value.cpu().numpy() for name, value in (numbers | buffers | {"queue": model.queue}).items()}


def shared_bytes(recipe: Config) -> int:
    """What the batches of a recipe take that its workers have ready, two each; all processes' are the whole batch."""
    pair = 2 * 3 * recipe.views.size**2
    return 2 * loader_workers(recipe.workers) * recipe.batch * pair


def views(folder: Path, count: int) -> Finding:
    """From image files to pairs of views: what a worker gives, and what all workers do, that so many GPUs have."""
    recipe = train.load_recipe(RECIPE)
    root = photographs.write_imagefolder(folder, photographs.DISTINCT, 1)
    suite = TwoViews(str(root), "", recipe.views.to_dict(), seed=0)
    workers = loader_workers(recipe.workers * max(count, 1))
    return hardware.supply(suite, 16, workers, hardware.need(FASTEST, 256, count))


def short(folder: Path, count: int) -> Finding:
    """A few iterations of a recipe on generated images, on all GPUs, whole, and cut off and continued."""
    here = max(count, 1)
    group = 32 if count else 4
    options = SHORT | {"batch": here * group, "model.bn_group": group, "model.queue": 16 * here * group}
    images = photographs.write_imagefolder(folder / "images", max(here * group, 100), 100)
    run = partial(train.run, RECIPE, data=images, cfg_options=options)
    return hardware.continued(run, here, folder)


def steps() -> dict[str, hardware.Step]:
    """Of the recipes of real size."""
    recipes = {i: train.load_recipe(i) for i in experiments.pretrain_ids() if i.startswith("in")}
    return {
        i: hardware.Step(r.batch, r.model.get("bn_group") or 1, [train.model_config(r), r.views.size, r.precision])
        for i, r in recipes.items()
    }
