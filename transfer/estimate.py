"""What a transfer will take: a few iterations and tested images, measured, for `resim-bench plan`."""

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config

from resim_bench import backbone
from resim_bench.data import photographs, scenes
from resim_bench.errors import UserError
from resim_bench.harness import progress, runs, trace
from resim_bench.harness.runner import build_runner
from resim_bench.machine import estimate
from resim_bench.machine.estimate import Measured
from transfer import hooks, protocols

PRECISE_BN = 2  # batches
TESTED = 4  # batches, of which the first does not count


def measure(
    transfer_id: str, data: Path | None = None, cfg_options: dict | None = None, counted: int | None = None
) -> Measured:
    """Train an untrained backbone through a protocol for a few iterations in a temporary folder, and test a few images.

    On a CPU the batch is one that it can manage, of smaller images, and what is measured is scaled. The whole run tests
    the protocol's number of images, whatever images the measurement reads; without any it generates some.

    Args:
        data: a folder in the data set's format, or one that holds it; any one will do. What holds neither, such as
            the images of pre-training, is left to the other room.
        cfg_options: `{dotted key: value}` on top of the config.
        counted: iterations that count; by default as many as a plan needs.

    Raises:
        UserError: there is no such id or option, there is no folder `data`, or what it holds cannot be used.
    """
    started = time.perf_counter()
    cfg = protocols.load(transfer_id, cfg_options)
    whole = Config(cfg.to_dict())
    width, height = cfg.test_scale
    part = 1.0
    if not torch.cuda.is_available():
        cfg.total_batch = estimate.small_batch(whole.total_batch, width * height)
        part = _shrink(cfg, estimate.small_side(width * height))
    cfg.max_iters = estimate.few_iterations(cfg.total_batch, whole.total_batch, counted)
    cfg.precise_bn_iters = min(PRECISE_BN, whole.precise_bn_iters)
    with tempfile.TemporaryDirectory() as folder:
        root, generated = _images(cfg, data, Path(folder))
        resolved = _resolved(cfg, root, Path(folder))
        before = progress.peak_memory()
        runner = build_runner(protocols.for_runner(resolved), seed=0).move_in(Path(folder) / "run")
        precise_bn = _timed_precise_bn(runner)
        runner.train()
        lines = trace.progress(runner.work_dir)
        peak, saved = progress.peak_memory(), (Path(runner.work_dir) / runs.LAST).stat().st_size
        test = _seconds_a_test(runner)
    tested = TESTED * test * resolved.test_dataloader.batch_size
    a_batch = precise_bn[0] / PRECISE_BN * whole.total_batch / (cfg.total_batch * part) if precise_bn else 0.0
    return Measured(
        iterations=whole.max_iters,
        workers=whole.train_dataloader.num_workers,
        shared=whole.precise_bn_iters * a_batch + whole.expected_data.test_images * test / part,
        disk=saved,
        generated=generated,
        **estimate.from_lines(
            lines,
            batch=whole.total_batch,
            measured=cfg.total_batch,
            part=part,
            elapsed=time.perf_counter() - started - sum(precise_bn) - tested,
            fixed=before + saved,
            peak=peak,
        ),
    )


def _images(cfg: Config, data: Path | None, folder: Path) -> tuple[Path, bool]:
    """Where the measurement's images are, and whether they stand in for others; a mini protocol generates its own."""
    if data is not None and not Path(data).is_dir():
        raise UserError(f"there is no folder {data}: name another, or leave --data out for generated images")
    data_set, expected = protocols.data_set(cfg), cfg.expected_data
    for place in filter(None, (data, cfg.data_root)):
        with contextlib.suppress(UserError):
            return data_set.find(place), False
    if expected.name == "scenes":
        return scenes.write(folder / "data", pretrain_images=1, train_images=50, test_images=20), False
    size = photographs.COCO if data_set.has_outlines else photographs.VOC
    names = cfg.classes or [f"class{number:04d}" for number in range(expected.classes)]
    return photographs.write_detection(folder / "data", size, names), True


def _shrink(cfg: Config, divisor: int) -> float:
    """Divide the sides of a protocol's images, and the numbers of its regions as their area; returns the part left."""
    area = divisor**2
    cfg.scales = [(width // divisor, height // divisor) for width, height in cfg.scales]
    cfg.test_scale = tuple(side // divisor for side in cfg.test_scale)
    sampler = cfg.model.train_cfg.rcnn.sampler
    sampler.num = max(sampler.num // area, 1)
    for proposals in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn):
        for count in ("nms_pre", "max_per_img"):
            proposals[count] = max(proposals[count] // area, 1)
    return 1 / area


def _resolved(cfg: Config, data: Path, folder: Path) -> Config:
    """The protocol for the Runner, with the measurement's data and backbone, everything loaded in this process."""
    data_set = protocols.data_set(cfg)
    root = data_set.find(data)
    classes = data_set.facts(root, cfg.classes, protocols.has_masks(cfg))["classes"]
    resolved = protocols.resolve(cfg, data=root, classes=classes, seed=0, backbone=_backbone(cfg, folder))
    resolved.custom_hooks[0].neck = resolved.init_neck = False  # where a pyramid comes from does not matter here
    resolved.default_hooks.logger.interval = 1
    for loader in (resolved.train_dataloader, resolved.test_dataloader):
        loader.num_workers, loader.persistent_workers = 0, False
    return resolved


def _backbone(cfg: Config, folder: Path) -> Path:
    """An untrained trunk; its residuals start at zero, so that frozen ones stay in scale without calibration."""
    from mmdet.models.backbones import ResNet

    trunk = ResNet(cfg.model.backbone.depth, base_channels=cfg.model.backbone.get("base_channels", backbone.WIDTH))
    trunk.init_weights()
    path = folder / "backbone.safetensors"
    backbone.save(path, trunk.state_dict(), {})
    return path


def _timed_precise_bn(runner) -> list[float]:
    """An empty list, into which precise batch norm puts its seconds once it has run."""
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, hooks.PreciseBNHook))
    taken, work = [], hook.after_train_iter

    def timed(runner, **arguments):
        begun = time.perf_counter()
        work(runner, **arguments)
        if runner.iter + 1 == runner.max_iters:
            taken.append(time.perf_counter() - begun)

    hook.after_train_iter = timed
    return taken


def _seconds_a_test(runner) -> float:
    """Seconds an image, without the evaluation at the end."""
    loop, taken = runner.test_loop, []
    runner.model.eval()
    batches = iter(loop.dataloader)
    for index in range(TESTED):
        begun = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        loop.run_iter(index, batch)
        taken.append((time.perf_counter() - begun) / len(batch["inputs"]))
    return statistics.median(taken[1:] or taken)
