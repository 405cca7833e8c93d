"""A protocol: its config by id, the options on top of it, and the summary of what it says.

A config states the few numbers that one changes (total batch, iterations, classes …) once at its top; `resolve`
carries them to the places where MMDetection reads them.
"""

from mmengine.config import Config
from mmengine.registry import DATASETS

from resim_bench import experiments
from resim_bench.errors import UserError
from resim_bench.harness import runs
from resim_bench.harness.options import find, merge_options
from resim_bench.harness.precision import OPTIM_WRAPPER
from transfer import settings
from transfer.datasets import DetectionFolder

# Where MMDetection reads what the command line or the top of a config says.
_SET_BY = {
    "train_dataloader.batch_size": "total_batch",
    "train_dataloader.sampler.batch_size": "total_batch",
    "train_cfg.max_iters": "max_iters",
    "custom_hooks.1.num_iters": "precise_bn_iters",
    "custom_hooks.0.path": "--backbone",
    "backbone": "--backbone",
    "train_dataloader.dataset.data_root": "--data",
    "test_dataloader.dataset.data_root": "--data",
    "train_dataloader.dataset.classes": "classes",
    "test_dataloader.dataset.classes": "classes",
    "model.roi_head.bbox_head.num_classes": "classes",
    "train_dataloader.dataset.seed": "--seed",
}
# What has done its work when the options come, or is replaced: a change would change nothing.
_UNREAD = {
    "norm_cfg": "the norm_cfg of each part of model",
    "train_pipeline": "train_dataloader.dataset.pipeline",
    "test_pipeline": "test_dataloader.dataset.pipeline",
    "val_dataloader": "test_dataloader",
    "val_evaluator": "test_evaluator",
    "val_cfg": "test_evaluator",
    "train_cfg.val_interval": "max_iters",
    "default_hooks.checkpoint": "default_hooks.logger",
    "log_processor": "default_hooks.logger",
    "custom_imports": "the config's file",
}
# Decides what a test sees beside others, and is in no summary.
_FIXED = ("test_dataloader.batch_size", "test_dataloader.sampler")


# Settings that came after the first records, and what was so before: as such they are in no summary.
LATER = {"fraction": 1.0, "precision": "float32"}


def _set_by(cfg: Config) -> dict[str, str]:
    """Where MMDetection reads what stands at the top, by place; lists are searched for what has it."""
    found = dict(_SET_BY)
    if "data_root" in cfg.test_evaluator:
        found["test_evaluator.data_root"] = "--data"
    kind = cfg.train_dataloader.dataset.type
    if "data_root" in cfg.test_evaluator and (kind != "COCOFolder" or "folder" in cfg.test_evaluator):
        found["test_evaluator.folder"] = "train_dataloader.dataset.type"
    if has_masks(cfg):
        found["model.roi_head.mask_head.num_classes"] = "classes"
    if cfg.init_neck:  # a hook without it is not of another protocol
        found["custom_hooks.0.neck"] = "init_neck"
    if cfg.fraction != LATER["fraction"]:
        found["train_dataloader.dataset.fraction"] = "fraction"
    for loader, key, name in (("train", "scales", "scales"), ("test", "scale", "test_scale")):
        for number, step in enumerate(cfg[f"{loader}_dataloader"].dataset.pipeline):
            if key in step:
                found[f"{loader}_dataloader.dataset.pipeline.{number}.{key}"] = name
    return found


def has_masks(cfg: Config) -> bool:
    """Whether a protocol trains and tests masks, so that objects need outlines."""
    return bool(cfg.model.roi_head.get("mask_head"))


def data_set(cfg: Config) -> type[DetectionFolder]:
    """The class that finds, describes and reads the data of a protocol."""
    return DATASETS.get(cfg.train_dataloader.dataset.type)


def load(transfer_id: str, options: dict | None = None) -> Config:
    """The config of a protocol with `options` ({dotted key: value}) merged into it.

    Raises:
        UserError: there is no such protocol or option, the option belongs elsewhere, or a setting cannot be what it is.
    """
    configs = experiments.transfer_ids()
    cfg = Config.fromfile(configs[experiments.select_one(transfer_id, configs)])
    options = options or {}
    for key, value in options.items():
        before = find(cfg, key)
        for place, source in _set_by(cfg).items():
            if key == place:
                raise UserError(f"{key} is set by {source}: give that instead")
        for place, instead in _UNREAD.items():
            if f"{key}.".startswith(f"{place}."):
                raise UserError(f"{key} changes nothing in a transfer: change {instead} instead")
        if f"{key}.".startswith(tuple(f"{place}." for place in _FIXED)):
            raise UserError(f"{key} belongs to the protocol and to no record: leave it out")
        settings.check_kind(key, before, value)
    iterations = cfg.max_iters
    merge_options(cfg, options)
    if isinstance(cfg.classes, str) and cfg.classes:
        cfg.classes = [cfg.classes]  # classes=ace: one of this name
    settings.check_protocol(cfg.to_dict())
    if cfg.max_iters != iterations:
        _rescale(cfg, iterations, options)
    return cfg


def _rescale(cfg: Config, iterations: int, options: dict) -> None:
    """Give a shorter or longer run the same shape: the steps in proportion, a warm-up of at most a third."""
    if any(key.startswith("param_scheduler") for key in options):
        return
    for scheduler in cfg.param_scheduler:
        if "milestones" in scheduler:
            scheduler.milestones = [round(step * cfg.max_iters / iterations) for step in scheduler.milestones]
        else:
            scheduler.end = min(scheduler.end, max(cfg.max_iters // 3, 2))


def resolve(cfg: Config, *, data, classes, seed: int, backbone, world_size: int = 1) -> Config:
    """`cfg` ready for MMDetection's Runner: data, classes, backbone, and this process's share of the batch.

    Validation is left out: the suite tests the last iterate, after training.

    Raises:
        UserError: the total batch does not divide among the processes.
    """
    if cfg.total_batch % world_size:
        raise UserError(
            f"total_batch={cfg.total_batch} does not divide among {world_size} processes: start another number of them"
        )
    values = {
        "total_batch": cfg.total_batch // world_size,
        "max_iters": cfg.max_iters,
        "precise_bn_iters": cfg.precise_bn_iters,
        "init_neck": cfg.init_neck,
        "fraction": cfg.fraction,
        "scales": cfg.scales,
        "test_scale": cfg.test_scale,
        "--backbone": str(backbone),
        "--data": str(data),
        "train_dataloader.dataset.type": cfg.train_dataloader.dataset.type,
        "--seed": seed,
        "classes": list(classes),
    }
    resolved = Config(cfg.to_dict())
    for place, source in _set_by(cfg).items():
        value = values[source]
        resolved.merge_from_dict({place: len(value) if place.endswith(".num_classes") else value})
    resolved.train_cfg.val_interval = cfg.max_iters
    for loader in (resolved.train_dataloader, resolved.test_dataloader):
        loader.persistent_workers = loader.num_workers > 0  # torch refuses to keep workers that do not exist
    resolved.merge_from_dict(dict(val_cfg=None, val_dataloader=None, val_evaluator=None))
    return resolved


# What follows these (RoI pooling, NMS, losses) does not bear bfloat16: at 800 px it tells boxes apart by 4 px.
_FLOAT32_AFTER = [
    "backbone",
    "neck",
    "rpn_head",
    "roi_head.shared_head",
    "roi_head.bbox_head",
    "roi_head.mask_head",
]


def for_runner(cfg: Config) -> Config:
    """What `resolve` gives, with what a summary does not find there: precision, which it names, and `recompute`."""
    ready = Config(cfg.to_dict())
    for hook in ready.custom_hooks:
        if hook.type == "Float32Hook" and cfg.precision == "tf32":
            hook.tf32 = True
    if cfg.precision == "bfloat16":
        ready.optim_wrapper |= dict(type=OPTIM_WRAPPER[cfg.precision], float32_after=_FLOAT32_AFTER)
    if cfg.recompute != "nothing":
        ready.custom_hooks = [*ready.custom_hooks, dict(type="RecomputeHook", what=cfg.recompute)]
    return ready


# Facts about a machine or about the data, not about the protocol.
_NO_PROTOCOL = {"_scope_", "num_classes", "path", "data_root", "batch_size"}


def summary(cfg: Config) -> dict:
    """The protocol as `{dotted key: value}`: model, data pipeline, optimiser, schedule, precision, total batch.

    Every setting of the config counts that can change a number; never workers, paths, the number of GPUs or the
    data themselves. Items of a list that have a type go by it: `train.RandomFlip.prob`.
    """
    train, test = cfg.train_dataloader, cfg.test_dataloader
    parts = {
        "total_batch": cfg.total_batch,
        "max_iters": cfg.train_cfg.max_iters,
        "model": cfg.model,
        "train": train.dataset.pipeline,
        "sampler": train.sampler,
        "test": test.dataset.pipeline,
        "optimiser": cfg.optim_wrapper,
        "schedule": cfg.param_scheduler,
        "hooks": cfg.custom_hooks,
        "metric": cfg.test_evaluator,
    }
    later = {key: cfg[key] for key, before in LATER.items() if cfg[key] != before}
    return dict(_leaves(parts | later, ""))


def deviations(shipped: dict, run: dict) -> dict[str, list]:
    """`{setting: [shipped, run]}` where two summaries differ."""
    return runs.differences(LATER | shipped, LATER | run)


def _leaves(value, key: str):
    if isinstance(value, list | tuple) and value and all(isinstance(item, dict) and "type" in item for item in value):
        value = {item["type"]: {k: v for k, v in item.items() if k != "type"} or True for item in value}
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            if name not in _NO_PROTOCOL:
                yield from _leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key, list(value) if isinstance(value, tuple) else value
