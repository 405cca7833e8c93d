"""What a pre-training will take: a few iterations of it, measured, for `resim-bench plan`."""

import shutil
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config

from pretrain import methods, train
from resim_bench.data import photographs, scenes
from resim_bench.errors import UserError
from resim_bench.harness import progress, runs, trace
from resim_bench.machine import estimate
from resim_bench.machine.estimate import Measured


def measure(
    pretrain_id: str, data: Path | None = None, cfg_options: dict | None = None, counted: int | None = None
) -> Measured:
    """Train a recipe for a few iterations in a temporary folder.

    On a CPU the batch is one that it can manage, and what is measured is scaled. The whole run is that on the recipe's
    `dataset.images` images, whatever images the measurement reads; without any it generates some.

    Args:
        data: an ImageFolder, or a folder that has the recipe's; any one will do.
        cfg_options: `{dotted setting: value}` that change the recipe.
        counted: iterations that count; by default as many as a plan needs.

    Raises:
        UserError: there is no such id or setting, settings do not fit, or there is no folder `data`.
    """
    started = time.perf_counter()
    recipe = train.load_recipe(pretrain_id, cfg_options)
    train.check(recipe, recipe.dataset.images, world_size=1)
    with tempfile.TemporaryDirectory() as folder:
        root, generated = Path(folder), False
        if methods.of(recipe).sees_images(recipe):
            root, generated = _images(recipe, data, Path(folder))
        batch = recipe.batch
        if not torch.cuda.is_available():
            batch = estimate.small_batch(batch, recipe.views.size**2, recipe.model.get("bn_group", 1))
        options = (cfg_options or {}) | {"batch": batch, "workers": 0, "log_interval": 1, "keep": ()}
        trains = methods.of(recipe).trains
        if trains:
            options["max_iters"] = estimate.few_iterations(batch, recipe.batch, counted)
        found = (_training if trains else _calibration)(pretrain_id, recipe, root, Path(folder), options, started)
    group = recipe.batch if recipe.micro_batch else recipe.model.get("bn_group") or 1
    return found._replace(generated=generated, group=group)


def _images(recipe: Config, data: Path | None, folder: Path) -> tuple[Path, bool]:
    """Where the measurement's images are, and whether they stand in for others; those of a mini recipe are its own."""
    usual = Path(recipe.dataset.root)
    root = Path(data or usual)
    root = root / usual.name if (root / usual.name).is_dir() else root
    if root.is_dir():
        return root, False
    if data is not None:
        raise UserError(f"there is no folder {data}: name another, or leave --data out for generated images")
    if recipe.dataset.name == "scenes":
        few = scenes.write(folder / "data", pretrain_images=recipe.batch, train_images=1, test_images=1)
        return few / usual.name, False
    return photographs.write_imagefolder(folder / "data", recipe.batch, recipe.dataset.classes), True


def _training(pretrain_id, recipe, root, folder, options, started) -> Measured:
    before = progress.peak_memory()
    file = train.run(pretrain_id, data=root, work_dir=folder / "work", cfg_options=options)
    return Measured(
        iterations=recipe.max_iters or recipe.epochs * (recipe.dataset.images // recipe.batch),
        workers=recipe.workers,
        shared=0.0,
        disk=_size(folder / "work"),
        **estimate.from_lines(
            trace.progress(file.parent),
            batch=recipe.batch,
            measured=options["batch"],
            elapsed=time.perf_counter() - started,
            fixed=before + (file.parent / runs.LAST).stat().st_size,
            peak=progress.peak_memory(),
        ),
    )


def _calibration(pretrain_id, recipe, root, folder, options, started) -> Measured:
    """Of an untrained backbone: batches without a step, which every process calibrates on."""
    for batches in (1, 3) if recipe.calibration_batches else (0, 0):  # the first run warms up
        begun = time.perf_counter()
        options |= {"calibration_batches": batches}
        work_dir = folder / str(batches)
        shutil.rmtree(work_dir, ignore_errors=True)
        train.run(pretrain_id, data=root, work_dir=work_dir, cfg_options=options)
    scale = recipe.batch / options["batch"]
    a_batch = (time.perf_counter() - begun) / max(batches, 1) * scale
    return Measured(
        iterations=0,
        batch=recipe.batch,
        step=0.0,
        sample=0.0,
        workers=recipe.workers,
        shared=0.0,
        once=begun - started + recipe.calibration_batches * a_batch,
        memory=progress.peak_memory(),
        batch_memory=0.0,
        disk=_size(work_dir),
        measured=options["batch"],
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
