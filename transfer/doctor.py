"""What `resim-bench doctor` looks at in detection: operators, a detector's step, loaders, a short run, memory."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor
from torch.utils.data import Dataset

from resim_bench import experiments
from resim_bench.data import photographs
from resim_bench.harness.runner import loader_workers
from resim_bench.machine import hardware
from resim_bench.machine.doctor import LEFT_OUT, NOT_READY, READY, Check, Finding
from transfer import estimate, mmcv_ops, protocols, train

C4, FPN = "voc-full", "coco-1x"
KERNEL = "report it with `resim-bench env`: this device computes something else than the suite means"
FEW = {"model.train_cfg.rcnn.sampler.num": 16, "model.train_cfg.rpn_proposal.max_per_img": 100}
SMALL = {"scales": [(224, 96), (224, 128)], "test_scale": (224, 128)}
STEPS = {  # of a C4 detector and of one with a pyramid and masks, small enough for float64 on a CPU
    "C4": ("mini-voc-full", {"model.rpn_head.type": "Detectron2RPNHead"} | FEW | SMALL),
    "FPN and masks": (
        "coco-1x",
        {
            "model.backbone.depth": 18,
            "model.neck.in_channels": [64, 128, 256, 512],
            "model.roi_head.bbox_head.fc_out_channels": 32,
            "model.roi_head.mask_head.num_convs": 1,
        }
        | FEW
        | SMALL,
    ),
}
CLASSES = [f"class{number:02}" for number in range(20)]


def checks(folder: Path, backbone: Path) -> Iterator[Check]:
    """Of this room; `folder` is the doctor's, `backbone` what its short pre-training has left."""
    count, images = hardware.gpus(), folder / "detection"
    remedy = "install mmcv anew for this torch, or without its operators: torchvision's stand in"
    yield from (
        Check(f"operators, {hardware.name(device)}", operators, (device,), remedy) for device in hardware.devices()
    )
    device = hardware.devices()[0]
    yield from (Check(f"a detector's step, {i}", step, (i, images, device), KERNEL, 120) for i in STEPS)
    yield from (Check(f"a detector's step, {i}, repeated", repeated, (i, images, device), KERNEL, 120) for i in STEPS)
    remedy = "take a machine of more cores a GPU"
    yield from (Check(f"images of {i}", loading, (i, images, count), remedy) for i in (C4, FPN))
    remedy = "`resim-bench mini` is the same made small, and says more; docs/runs.md has what a run survives"
    yield Check(f"{C4}, short", short, (images, folder / "transfer", backbone, count), remedy, 240)
    remedy = "`recompute=blocks` or `precision=bfloat16` (docs/settings.md), or more GPUs"
    yield from hardware.memories("transfer", steps, estimate.measure, "total_batch", remedy)


def operators(device: str) -> Finding:
    """RoIAlign and its gradient in float32 against float64 on the CPU, and NMS against a loop over boxes."""
    from mmcv.ops import nms, roi_align

    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 20, 30, generator=rng)
    corner = torch.randint(0, 160, (40, 2), generator=rng).float()
    boxes = torch.cat([corner, corner + torch.randint(20, 160, (40, 2), generator=rng)], dim=1)
    rois = torch.cat([torch.arange(40)[:, None] % 2, boxes], dim=1)
    error = hardware.against_float64(
        lambda x: roi_align(x, rois.to(x), (7, 7), 1 / 16, 0, "avg", True), [features], device
    )
    scores = torch.linspace(1, 0.1, 40)
    kept = nms(boxes.to(device), scores.to(device), 0.5)[1].cpu().tolist()
    which = "mmcv's own" if mmcv_ops.is_compiled() else "torchvision's in mmcv's place"
    if kept != _kept(boxes, 0.5):
        return Finding(NOT_READY, f"{which}: NMS keeps other boxes than a loop does")
    return Finding(READY if error <= 1e-4 else NOT_READY, f"{which}; RoIAlign {error:.0e} off, NMS right")


def _kept(boxes: Tensor, threshold: float) -> list[int]:
    """What NMS keeps of boxes by falling score."""
    from torchvision.ops import box_iou

    kept: list[int] = []
    for i in range(len(boxes)):
        if not kept or (box_iou(boxes[[i]], boxes[kept]) <= threshold).all():
            kept.append(i)
    return kept


def _resolved(transfer_id: str, images: Path, options: dict) -> Config:
    """A protocol on generated images of 20 classes, which are written where they are not yet."""
    if not images.is_dir():
        photographs.write_detection(images, photographs.VOC, CLASSES)
    cfg = protocols.load(transfer_id, options)
    root = protocols.data_set(cfg).find(images)
    return protocols.resolve(cfg, data=root, classes=CLASSES, seed=0, backbone="none")


def _detector(cfg: Config) -> torch.nn.Module:
    """In one process, as it starts."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return revert_sync_batchnorm(model).train()


def _training_images(cfg: Config) -> Dataset:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(cfg.train_dataloader.dataset)


def _numbers(model: torch.nn.Module, images: Dataset, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Losses and gradients by name, of a step on two images."""
    model.to(device, dtype).zero_grad()
    torch.manual_seed(1)
    batch = model.data_preprocessor(pseudo_collate([images[0, 0], images[1, 1]]), True)
    loss, parts = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in (parts | gradients).items()}


ALLOWED = {torch.float64: (1e-9, 1e-6), torch.float32: (1e-4, 2e-2)}  # of losses, of gradients


def step(which: str, images: Path, device: str) -> Finding:
    """Losses and gradients of a step of `STEPS` in float64 against the CPU's; those of the CPU itself in float32.

    Gradients are compared as one vector: in float32 a ReLU here and there falls on the other side.
    """
    transfer_id, options = STEPS[which]
    cfg = _resolved(transfer_id, images, options)
    samples = _training_images(cfg)
    dtype = torch.float32 if device == "cpu" else torch.float64
    with hardware.products_in("float32"):
        found = _numbers(_detector(cfg), samples, device, dtype)
    exact = _numbers(_detector(cfg), samples, "cpu", torch.float64)
    pairs = [(name, found[name].cpu().double(), value) for name, value in exact.items()]
    losses = max(hardware.apart([ours], [theirs]) for name, ours, theirs in pairs if "." not in name)
    ours, theirs = (torch.cat([pair[side].flatten() for pair in pairs if "." in pair[0]]) for side in (1, 2))
    gradients = float((ours - theirs).norm() / theirs.norm())
    fine = losses <= ALLOWED[dtype][0] and gradients <= ALLOWED[dtype][1]
    said = f"losses {losses:.0e} and gradients {gradients:.0e} from the CPU's in float64"
    return Finding(READY if fine else NOT_READY, said)


def repeated(which: str, images: Path, device: str) -> Finding:
    """A step of `STEPS` twice, in float32."""
    transfer_id, options = STEPS[which]
    cfg = _resolved(transfer_id, images, options)
    samples = _training_images(cfg)
    with hardware.products_in("float32"):
        return hardware.twice(lambda: _numbers(_detector(cfg), samples, device, torch.float32))


def loading(transfer_id: str, images: Path, count: int) -> Finding:
    """From image files to what a detector trains on: what a worker gives, and what all do, that so many GPUs have."""
    cfg = _resolved(transfer_id, images, {})
    workers = loader_workers(cfg.train_dataloader.num_workers * max(count, 1))
    needed = hardware.need(transfer_id, cfg.total_batch, count)
    return hardware.supply(_training_images(cfg), 2, workers, needed, pseudo_collate)


def short(images: Path, folder: Path, backbone: Path, count: int) -> Finding:
    """A few iterations of a protocol on generated images, on all GPUs, whole, and cut off and continued; each tests."""
    if not backbone.is_file():
        return Finding(LEFT_OUT, f"it needs the backbone of the pre-training, {backbone.name}, which was not made")
    options = {"max_iters": hardware.ITERATIONS, "total_batch": 2 * max(count, 1), "precise_bn_iters": 2}
    options |= {"default_hooks.logger.interval": 1}
    if not count:
        options |= SMALL | FEW | {"model.test_cfg.rpn.max_per_img": 20}
    _resolved(C4, images, {})
    run = partial(train.run, C4, backbone, data=images, cfg_options=options)
    return hardware.continued(run, max(count, 1), folder)


def steps() -> dict[str, hardware.Step]:
    """Of the protocols of real size."""
    shipped = {i: protocols.load(i) for i in experiments.transfer_ids() if i.startswith(("voc-", "coco-"))}
    return {
        i: hardware.Step(cfg.total_batch, 1, [cfg.model.to_dict(), cfg.scales, cfg.precision, cfg.recompute])
        for i, cfg in shipped.items()
    }
