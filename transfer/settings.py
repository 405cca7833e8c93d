"""What a protocol may say, where building it does not tell: the schema of its top, and types of deep settings by name.

The rest is MMDetection's, and is checked by being built (`resim_bench.harness.options.built_from`).
"""

from typing import Annotated, Literal

from mmengine.registry import DATASETS
from pydantic import AfterValidator, Field, Strict, TypeAdapter, model_validator

from resim_bench.errors import UserError
from resim_bench.harness.precision import OPTIM_WRAPPER
from resim_bench.settings import (
    AtLeast0,
    Flag,
    Natural,
    Number,
    Pixels,
    Positive,
    Schema,
    Share,
    Text,
    Whole,
    accepts,
    check,
    check_each,
    one_of,
    says,
    shown,
)
from transfer.datasets import DetectionFolder
from transfer.hooks import RECOMPUTED
from transfer.metrics import COCO_EVALUATORS, COCO_KINDS

_Size = Annotated[tuple[Pixels, Pixels], Strict(False)]
_SCALE = says("width and height in pixels, such as (1333,800); no side is above 16384")
_SCALES = says("pairs of pixels, such as [(1333,640),(1333,800)]")


class Open(Schema):
    """Settings of which some are ours to check, and the others MMDetection's."""

    model_config = {"extra": "allow"}


def _unique(names):
    if len(set(names)) < len(names) or not names:
        raise ValueError
    return names


def _ours_first(hooks):
    if [hook.type for hook in hooks[:2]] != ["BackboneHook", "PreciseBNHook"]:
        raise ValueError
    return hooks


def _is_folder(name) -> bool:
    kind = DATASETS.get(name) if isinstance(name, str) else None
    return isinstance(kind, type) and issubclass(kind, DetectionFolder)


class Suppression(Open):
    """Of boxes that overlap one of a higher score."""

    type: one_of("nms", "soft_nms")
    iou_threshold: Share


class Typed(Open):
    """A hook, a transform, a scheduler."""

    type: Text


class LoggerSettings(Open):
    """What says how the training goes; the suite puts its own in its place."""

    type: one_of("LoggerHook")
    interval: Whole


class DefaultHooks(Open):
    """mmengine's own hooks."""

    logger: LoggerSettings


class ExpectedData(Schema):
    """What the data set is where it is the protocol's own."""

    name: Text
    train_images: Whole
    test_images: Whole
    classes: Whole


class VOCMetric(Open):
    """Of `transfer.metrics`."""

    type: Literal["VOCAveragePrecision"]
    printed: Flag = False


class COCOMetric(Open):
    """Of `transfer.metrics`."""

    type: Literal["COCOAveragePrecision"]
    evaluator: one_of(*COCO_EVALUATORS) = "pycocotools"
    kinds: Annotated[
        tuple[one_of(*COCO_KINDS), ...],
        Strict(False),
        AfterValidator(_unique),
        says(f"one or more of {', '.join(COCO_KINDS)}, as a list"),
    ] = tuple(COCO_KINDS)


Metric = Annotated[VOCMetric | COCOMetric, Field(discriminator="type")]


class Backbone(Open):
    """The detector's trunk."""

    num_stages: Whole = 4
    frozen_stages: Annotated[int, Field(ge=-1), says("-1 for none, 0 for the stem, or how many stages")]

    @model_validator(mode="after")
    def _has_the_stages(self):
        if self.frozen_stages > self.num_stages:
            raise ValueError(f"model.backbone.frozen_stages is {self.frozen_stages}: give -1 to {self.num_stages}")
        return self


class RoIHead(Open):
    """What the detector says of regions."""

    shared_head: Open | None = None
    bbox_head: Open
    mask_head: Open | None = None


class Model(Open):
    """The detector."""

    backbone: Backbone
    neck: Open | None = None
    roi_head: RoIHead


class Data(Open):
    """A split, and how it is read."""

    type: accepts(_is_folder, "VOCFolder, COCOFolder, COCOPersons, or another that the config imports")
    pipeline: Annotated[list[Typed], Strict(False), says("transforms, each with its type")]


class Training(Data):
    """What is trained on."""

    split: one_of("train")


class Test(Data):
    """What is tested on."""

    split: one_of("test")


class TrainLoader(Open):
    """`batch_size` is `total_batch`'s."""

    num_workers: Natural
    sampler: Open
    dataset: Training


class TestLoader(Open):
    """The loader of the test."""

    batch_size: Whole
    num_workers: Natural
    dataset: Test


class Optimizer(Open):
    """torch's; what it takes beside these is found out by building it."""

    lr: Positive
    momentum: Share = 0.0
    weight_decay: AtLeast0 = 0.0


class OptimWrapper(Open):
    """mmengine's."""

    type: Text = "OptimWrapper"
    optimizer: Optimizer


class TrainLoop(Open):
    """mmengine's loop by iterations."""

    type: one_of("IterBasedTrainLoop")


class TestLoop(Open):
    """mmengine's."""

    type: one_of("TestLoop")


class Protocol(Open):
    """The names at the top of a protocol."""

    model: Model
    train_dataloader: TrainLoader
    test_dataloader: TestLoader
    train_cfg: TrainLoop
    test_cfg: TestLoop
    optim_wrapper: OptimWrapper
    env_cfg: Open
    default_scope: one_of("mmdet")

    total_batch: Whole
    max_iters: Whole
    precise_bn_iters: Natural
    scales: Annotated[list[_Size], Field(min_length=1), Strict(False), _SCALES]
    test_scale: Annotated[_Size, _SCALE]
    fraction: Annotated[float, Field(strict=True, gt=0, le=1), says("a number above 0 and at most 1")]
    backbone: Text | None
    init_neck: Flag
    precision: one_of(*OPTIM_WRAPPER)
    recompute: one_of(*RECOMPUTED)
    classes: (
        Annotated[
            tuple[Text, ...],
            Strict(False),
            AfterValidator(_unique),
            says("names, each once, such as ace,king or ['1','2'], or None for those of the annotations"),
        ]
        | None
    )
    data_root: Text
    expected_data: ExpectedData
    custom_hooks: Annotated[
        list[Typed], AfterValidator(_ours_first), says("hooks, of which BackboneHook and PreciseBNHook come first")
    ]
    default_hooks: DefaultHooks
    test_evaluator: Metric

    @model_validator(mode="after")
    def _goes_together(self):
        train, test = self.train_dataloader.dataset.type, self.test_dataloader.dataset.type
        if train != test:
            raise ValueError(f"train_dataloader.dataset.type is {train} and that of test_dataloader {test}: give one")
        if self.test_evaluator.type != DATASETS.get(train).metric:
            raise ValueError(
                f"test_evaluator.type is {self.test_evaluator.type}: {train} is tested by {DATASETS.get(train).metric}"
            )
        if self.precision != "float32" and self.optim_wrapper.type != "OptimWrapper":
            raise ValueError(
                f"precision is {self.precision} and optim_wrapper.type {self.optim_wrapper.type}: give one of them"
            )
        if self.recompute == "res5" and self.model.roi_head.shared_head is None:
            raise ValueError("recompute is res5, and the model has no res5 of regions: give blocks or nothing")
        if "mask" in getattr(self.test_evaluator, "kinds", ()) and self.model.roi_head.mask_head is None:
            raise ValueError("model.roi_head.mask_head is none, and the test measures masks: leave it as it is")
        if self.init_neck and self.model.neck is None:
            raise ValueError("init_neck is True, and the model has no neck to load: leave it out")
        return self


def _type(kind) -> TypeAdapter:
    return TypeAdapter(kind, config={"strict": True, "allow_inf_nan": False})


_positives = _type(
    Annotated[list[Positive], Field(min_length=1), Strict(False), says("a list of numbers above 0, such as [8,16]")]
)
DEEP = {
    "model.data_preprocessor.mean": _type(
        Annotated[tuple[Number, Number, Number], Strict(False), says("three numbers")]
    ),
    "model.data_preprocessor.std": _type(
        Annotated[tuple[Positive, Positive, Positive], Strict(False), says("three numbers above 0")]
    ),
    "model.data_preprocessor.pad_size_divisor": _type(Whole),
    "model.backbone.strides": _type(
        Annotated[list[Whole], Field(min_length=1), Strict(False), says("a list of whole numbers, such as [1,2,2]")]
    ),
    "model.*.stride": _type(Whole),
    "model.*.style": _type(one_of("pytorch", "caffe")),
    "model.*.featmap_strides": _positives,
    "model.*.finest_scale": _type(Positive),
    "model.*.depth": _type(one_of(18, 34, 50, 101, 152)),
    "model.*.loss_weight": _type(AtLeast0),
    "model.train_cfg.*.assigner.*_iou*": _type(Share),
    "model.train_cfg.*.sampler.num": _type(Whole),
    "model.train_cfg.*.sampler.pos_fraction": _type(Share),
    "model.*_cfg.*.nms_pre": _type(Whole),
    "model.*_cfg.*.max_per_img": _type(Whole),
    "model.rpn_head.anchor_generator.base_sizes": _positives,
    "model.rpn_head.anchor_generator.scales": _positives,
    "model.rpn_head.anchor_generator.ratios": _positives,
    "model.rpn_head.anchor_generator.strides": _positives,
    "model.*.roi_layer.output_size": _type(Whole),
    "model.*.roi_layer.sampling_ratio": _type(Natural),
    "model.*.bbox_coder.target_means": _type(
        Annotated[tuple[Number, Number, Number, Number], Strict(False), says("four numbers")]
    ),
    "model.*.bbox_coder.target_stds": _positives,
    "model.*_cfg.*.nms": TypeAdapter(Suppression),
    "model.*_cfg.*.min_bbox_size": _type(AtLeast0),
    "model.*_cfg.*.score_thr": _type(Share),
    "model.*_cfg.*.mask_thr_binary": _type(Share),
    "model.*_cfg.*.mask_size": _type(Whole),
    "*_dataloader.dataset.pipeline.*.imdecode_backend": _type(one_of("pillow")),
    "*_dataloader.dataset.pipeline.*.backend": _type(one_of("pillow", "cv2")),
    "*_dataloader.dataset.pipeline.*.prob": _type(Share),
    "train_dataloader.sampler.square": _type(one_of("wide", "tall")),
    "optim_wrapper.paramwise_cfg.*_mult": _type(AtLeast0),
    "param_scheduler": _type(Annotated[list[Typed], Strict(False), says("schedulers, each with its type")]),
    "param_scheduler.*.milestones": _type(
        Annotated[tuple[Natural, ...], Strict(False), says("iterations, such as [18000,22000]")]
    ),
    "param_scheduler.*.gamma": _type(Positive),
    "param_scheduler.*.*_factor": _type(Share),
    "param_scheduler.*.begin": _type(Natural),
    "param_scheduler.*.end": _type(Whole),
    "param_scheduler.*.by_epoch": _type(Flag),
}
"""Types of settings by a pattern of their names."""


def check_protocol(settings: dict) -> None:
    """Refuse a protocol's config that cannot be what it is.

    Raises:
        UserError: names the setting, what was given, and what may be given.
    """
    check_each(DEEP, settings)
    check(Protocol, settings)


def check_metric(settings: dict) -> None:
    """Refuse what is no metric's settings.

    Raises:
        UserError: names the setting.
    """
    check(_type(Metric), settings, "metric")


def check_kind(name: str, before, given) -> None:
    """Refuse for a number, a flag or a table what is none, and what is not finite, wherever it is.

    Raises:
        UserError: names the setting.
    """
    for what, kind in (("true or false", bool), ("a number", int | float), ("one of its own settings", dict)):
        if isinstance(before, kind):
            fits = isinstance(given, kind) and isinstance(given, bool) == isinstance(before, bool)
            if not fits and not (kind is dict and given is None):
                own = f", {', '.join(before)}" if kind is dict else ""
                raise UserError(f"{name} is {shown(given)}: give {what}{own}")
            break
    for value in _leaves(given):
        if isinstance(value, float) and value - value != 0:
            raise UserError(f"{name} is {shown(given)}: give a finite number")


def _leaves(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    yield from [value] if inner is None else (leaf for item in inner for leaf in _leaves(item))
