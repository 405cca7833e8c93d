"""A recipe becomes a backbone file: what mmengine's Runner is asked to do, and what the file says of it."""

import itertools
import math
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import MODELS, PARAM_SCHEDULERS

from pretrain import data as pretrain_data
from pretrain import keep, methods, monitor, recipes  # noqa: F401 (monitor registers its hook)
from pretrain.encoders import BackboneSettings
from pretrain.recipes import IN_PARTS
from resim_bench import backbone, experiments, record, settings
from resim_bench.errors import UserError
from resim_bench.harness import console, draws, launch, options, runs
from resim_bench.harness.precision import OPTIM_WRAPPER
from resim_bench.harness.runner import (
    QuietRunner,
    build_runner,
    claimed,
    leave_ctrl_c_to_the_main_process,
    loader_workers,
)

# Settings that came after the first records, and what was so before: as such they are in no protocol.
LATER = {
    "views.blur": "gaussian",
    "model.levels.*.border": "closed",
    "model.levels.*.positives": "same",
    "model.levels.*.head": "conv3x3",
}
# Settings that cannot change a number.
UNPROTOCOLLED = ("keep", "micro_batch", "workers", "log_interval", "monitor", "custom_imports")


@PARAM_SCHEDULERS.register_module()
class EpochLR(LRSchedulerMixin, _ParamScheduler):
    """The learning rate by epoch, in a loop that counts iterations.

    Args:
        epoch_iters: iterations per epoch.
        epochs: of the whole schedule.
        milestones: epochs after which the rate drops to a tenth; without any, the cosine
            lr / 2 (1 + cos(pi epoch / epochs)), constant within an epoch (MoCo).
    """

    def __init__(self, optimizer, epoch_iters, epochs, milestones=(), **kwargs):
        self.epoch_iters, self.epochs, self.milestones = epoch_iters, epochs, milestones
        super().__init__(optimizer, **kwargs)

    def _get_value(self):
        epoch = min(self.last_step // self.epoch_iters, self.epochs)  # behind the end the cosine would rise again
        factor = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.milestones:
            factor = 0.1 ** sum(epoch >= m for m in self.milestones)
        return [group["initial_lr"] * factor for group in self.optimizer.param_groups]


FUSED = {"fused": True}  # one pass over each parameter instead of several: the same numbers to rounding


# What a backbone is where a recipe does not say; of what came later the protocols of before say nothing.
STATED = {name: BackboneSettings.model_fields[name].default for name in ("depth", "strides")}


def load_recipe(pretrain_id: str, cfg_options: dict | None = None) -> Config:
    """The recipe of an id or of a file, with options of the command line; its settings are of their types and fit.

    Raises:
        UserError: there is no such recipe, no such setting in it, or a setting cannot be what it is.
    """
    recipe = _read(experiments.recipe_file(pretrain_id))
    model = recipe.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("type"), str):
        raise UserError(f"model is {settings.shown(model)}: give the settings of a method, with its name as type")
    if isinstance(model.get("backbone"), dict):
        model.backbone = STATED | model.backbone.to_dict()
    if model.type in {method.__name__ for method in methods.known()}:
        recipe.model = methods.of(recipe).complete(recipe.model.to_dict())
    recipe = options.merge_options(recipe, cfg_options or {})
    settings.check(recipes.schema(), recipe.to_dict())
    return recipe


def _read(file: Path) -> Config:
    """A recipe's file; what it imports may stand beside it."""
    beside = str(file.resolve().parent)
    try:
        sys.path.insert(0, beside)
        return Config.fromfile(file)
    except Exception as error:
        if file.is_relative_to(experiments.ROOT):
            raise
        raise UserError(
            f"{file} is no recipe ({type(error).__name__}: {options.first_line(error)}): correct it"
        ) from error
    finally:
        sys.path.remove(beside)


def options_of_each(pretrain_ids: list[str], cfg_options: dict) -> dict[str, dict]:
    """For each recipe the options that it has: a MoCo has a queue, a supervised network has none.

    Raises:
        UserError: an option that none of them has, or one that one of them cannot have.
    """
    chosen: dict[str, dict] = {i: {} for i in pretrain_ids}
    shipped = {i: load_recipe(i) for i in pretrain_ids}
    for key, value in cfg_options.items():
        refused = []
        for i in pretrain_ids:
            try:
                options.find(shipped[i], key)
                chosen[i][key] = value
            except UserError as error:
                refused.append(error)
        if len(refused) == len(pretrain_ids):
            raise refused[0]
    for i, of_recipe in chosen.items():
        load_recipe(i, of_recipe)
    return chosen


def check(recipe: Config, images: int, world_size: int) -> None:
    """Refuse a batch that the images or the processes do not allow.

    Raises:
        UserError: naming the two that do not go together.
    """
    batch, group = recipe.batch, recipe.model.get("bn_group")
    if batch % world_size:
        raise UserError(
            f"the batch of {batch} is not divisible by {world_size} processes: start another number of them"
        )
    if images < batch:
        raise UserError(f"the batch of {batch} is larger than the data set of {images} images: set batch smaller")
    beyond = [epoch for epoch in recipe.keep if recipe.max_iters and epoch * (images // batch) > recipe.max_iters]
    if beyond:
        raise UserError(
            f"keep has epoch {beyond[0]}, and max_iters={recipe.max_iters} end before: an epoch of these {images} "
            f"images has {images // batch} iterations"
        )
    if group and batch // world_size % group:
        raise UserError(
            f"a process's batch of {batch // world_size} is not a multiple of the batch-norm group of {group} images: "
            "change batch or model.bn_group"
        )
    if recipe.micro_batch and world_size > 1:
        raise UserError(f"{IN_PARTS}: set a smaller batch instead")


def protocol(recipe: Config, facts: dict) -> dict:
    """What decides the numbers: the recipe without workers and paths, and which images it saw."""
    settings = {key: value for key, value in _as_at_first(recipe.to_dict()).items() if key not in UNPROTOCOLLED}
    seen = {"name": recipe.dataset.name, "images": facts["images"], "classes": facts["classes"]}
    settings["dataset"] = {**{k: v for k, v in settings["dataset"].items() if k != "root"}, **seen}
    return runs.plain(settings)


def _as_at_first(settings: dict, above: str = "") -> dict:
    """Settings without those that came later and have the value that there was before."""
    named = [(f"{above}{key}", key, value) for key, value in settings.items()]
    return {
        key: _as_at_first(value, f"{name}.") if isinstance(value, dict) else value
        for name, key, value in named
        if not any(fnmatchcase(name, pattern) and value == before for pattern, before in LATER.items())
    }


def model_config(recipe: Config) -> dict:
    """What the model is built from."""
    in_parts = {"micro_batch": recipe.micro_batch} if methods.of(recipe).in_parts else {}
    return recipe.model.to_dict() | in_parts


def optim_config(recipe: Config) -> dict:
    """What the optimiser and its precision are built from."""
    groups = methods.of(recipe).parameter_groups(recipe)
    wrapper = dict(type=OPTIM_WRAPPER[recipe.precision], optimizer=recipe.optimizer.to_dict() | FUSED)
    return wrapper | ({"paramwise_cfg": groups} if groups else {})


def runner_config(recipe: Config, dataset: dict, images: int, world_size: int) -> Config:
    """The recipe as a configuration of mmengine's Runner."""
    epoch_iters = images // recipe.batch
    per_process = recipe.batch // world_size
    workers = loader_workers(recipe.workers)
    monitored = dict(
        type="MonitorHook", epoch_iters=epoch_iters, views=recipe.views.to_dict(), **recipe.monitor.to_dict()
    )
    return Config(
        dict(
            model=model_config(recipe),
            train_dataloader=dict(
                dataset=dataset,
                batch_size=per_process,
                sampler=dict(type="DrawSampler", batch_size=per_process, drop_last=True),
                collate_fn=methods.of(recipe).collation(recipe),
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=torch.cuda.is_available(),
                drop_last=True,
            ),
            train_cfg=dict(by_epoch=False, max_iters=recipe.max_iters or recipe.epochs * epoch_iters),
            optim_wrapper=optim_config(recipe),
            param_scheduler=dict(
                type="EpochLR",
                epoch_iters=epoch_iters,
                epochs=recipe.epochs,
                milestones=recipe.milestones,
                by_epoch=False,
            ),
            default_hooks=dict(logger=dict(type="LoggerHook", interval=recipe.log_interval)),
            custom_hooks=[
                dict(type="Float32Hook", tf32=recipe.precision == "tf32"),
                *([monitored] if recipe.monitor.every else []),
            ],
        )
    )


def run(
    pretrain_id: str,
    *,
    data: Path | None = None,
    seed: int = 0,
    work_dir: Path = Path("work_dirs"),
    cfg_options: dict | None = None,
    resume: bool = False,
    launcher: str = "none",
    log: tuple[str, ...] = (),
) -> Path:
    """Pre-train one recipe with one seed and return its backbone file; a finished run is left as it is.

    Args:
        data: the ImageFolder; by default the recipe's `dataset.root`.
        cfg_options: `{dotted setting: value}` that change the recipe; the backbone's provenance names them.
        resume: continue an unfinished run.
        log: where else progress goes, as `resim_bench.harness.logs` has it.

    Raises:
        UserError: wrong input, an unfinished run without `resume`, or a loss that is not finite.
    """
    recipe, shipped = load_recipe(pretrain_id, cfg_options), load_recipe(pretrain_id)
    pretrain_id, method = experiments.recipe_id(pretrain_id), methods.of(recipe)
    launch.join_processes(launcher)
    world_size = get_world_size()
    root = Path(data or recipe.dataset.root)
    output = backbone.path(work_dir, pretrain_id, seed)
    run_dir = output.parent
    if not method.sees_images(recipe):
        images, facts = None, NO_IMAGES
    elif output.is_file() and not root.exists():  # its data are away: nothing is left to do that would need them
        images, facts = None, claim_of(output)["data"]
    else:
        images = pretrain_data.list_images(str(root), recipe.dataset.name)
        facts = images.facts()
    method.suit(recipe.model, facts)
    seen = facts if facts["images"] else recipe.dataset.to_dict()
    check(recipe, seen["images"], world_size)
    run_protocol = protocol(recipe, seen)
    claim = {"protocol": run_protocol, "seed": seed, "data": facts}
    place = {"run_dir": run_dir, "config": claim, "output": output, "resume": resume}
    old_digest = (lambda: images.old_digest(root)) if images else None
    how = {"made_by": lambda: claim_of(output), "old_digest": old_digest}
    kept = keep.files(work_dir, pretrain_id, seed, recipe.keep)
    done = f"{pretrain_id}, seed {seed}: done before, {output}"

    def is_finished():
        for file in kept.values():
            made_by = partial(claim_of, file)
            runs.is_finished(file.parent, claim, file, resume, made_by=made_by, old_digest=old_digest)
        return runs.is_finished(**place, **how)

    if launch.on_main_process(is_finished):
        keep.refuse_past(kept, recipe.epochs)
        console.say(done)
        return output

    if images:
        console.say(images.survey.line())
    length = f"{recipe.max_iters} iterations" if recipe.max_iters else f"{recipe.epochs} epochs"
    console.say(
        f"{pretrain_id}, seed {seed}: "
        + (f"{length} of batch {recipe.batch} over {facts['images']:,} images, " if images else "no training, ")
        + console.processes()
    )
    dataset = dict(root=str(root), name=recipe.dataset.name, views=recipe.views.to_dict(), seed=seed)
    train = _training if method.trains else _calibration
    epoch_iters = seen["images"] // recipe.batch

    def save(file: Path, trained: Trained, **changed) -> None:
        provenance = {
            "id": pretrain_id,
            "seed": seed,
            "arch": recipe.model.backbone.to_dict(),
            "epochs": round(trained.iterations / epoch_iters, 2),
            "protocol": run_protocol,
            "config_digest": record.digest(runs.plain(claim)),
            "overrides": runs.plain(cfg_options or {}),
            "deviations": runs.differences(protocol(shipped, shipped.dataset), run_protocol),
            "data": facts,
            "survey": images.survey.facts() if images else {},
            "changes": trained.changes,
            **runs.environment(),
        }
        backbone.save(file, trained.model.transferred(), provenance | changed)

    def save_kept(file: Path, epoch: int, runner: QuietRunner) -> None:
        middle = {"id": experiments.kept_id(pretrain_id, epoch), "epochs": epoch, record.OF_EPOCHS: recipe.epochs}
        save(file, _trained(runner), **middle)

    with options.built_from(cfg_options or {}):
        start = train(recipe, dataset, seen["images"], seed, launcher, log)
    with claimed(**place, **how) as finished:
        if finished:
            console.say(done)
            return output
        trained = start(run_dir, [keep.KeepHook(kept, epoch_iters, save_kept)])
        if is_main_process():
            save(output, trained)
    console.say(f"{pretrain_id}, seed {seed}: wrote {output}")
    return output


NO_IMAGES = {"images": 0, "classes": 0, "digest": runs.content_digest(images=())}


def claim_of(output: Path) -> dict:
    """The configuration that a backbone file says it is of, as `run` states it."""
    _, provenance = backbone.load(output)
    return {key: provenance.get(key) for key in ("protocol", "seed", "data")}


class Trained(NamedTuple):
    """A model at its end, the iterations it took, and what changed of the circumstances meanwhile."""

    model: torch.nn.Module
    iterations: int
    changes: list[dict]


def _trained(runner: QuietRunner) -> Trained:
    return Trained(launch.unwrapped(runner.model), runner.iter, runner.changes)


Start = Callable[[Path, list[Hook]], Trained]


def _training(recipe: Config, dataset: dict, images: int, seed: int, launcher: str, log: tuple[str, ...]) -> Start:
    """Build everything; what comes back trains in a run's directory, with hooks that it is given."""
    samples = dict(type=methods.of(recipe).samples, **dataset)
    cfg = runner_config(recipe, samples, images, get_world_size())
    runner = build_runner(cfg, seed, launcher, log)

    def start(run_dir, hooks):
        run = record.digest(runs.read_claim(run_dir))
        runner.move_in(run_dir, run, micro_batch=recipe.micro_batch)
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()
        return _trained(runner)

    return start


def _calibration(recipe: Config, dataset: dict, images: int, seed: int, launcher: str, log: tuple[str, ...]) -> Start:
    """An untrained model whose running statistics are to be those of the pre-training images, where it has batches.

    Fresh statistics (mean 0, variance 1) would give a frozen ResNet-50 activations of standard deviation 15.
    """
    torch.manual_seed(seed)
    model = MODELS.build(recipe.model.to_dict())
    if not recipe.calibration_batches:
        return lambda run_dir, hooks: Trained(model, 0, [])
    views = pretrain_data.LabelledView(**dataset)
    loader = torch.utils.data.DataLoader(
        views,
        recipe.batch,
        sampler=draws.DrawSampler(views, seed, recipe.batch, alone=True),  # the first process' model is kept
        num_workers=loader_workers(recipe.workers),
        worker_init_fn=leave_ctrl_c_to_the_main_process,
    )
    return lambda run_dir, hooks: Trained(_calibrated(model, loader, recipe.calibration_batches), 0, [])


@torch.no_grad()
def _calibrated(model: torch.nn.Module, loader: torch.utils.data.DataLoader, batches: int) -> torch.nn.Module:
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = None  # a plain average over the batches
    for batch in itertools.islice(loader, batches):
        model(batch["image"])
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    return model
