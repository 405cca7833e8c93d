"""What a recipe may say: the schema of `configs/*.py`, and which of its settings go together.

What a method, the encoder and the views read is described beside them; the rest of a recipe stands here.
"""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from pretrain.methods import MoCoSettings, RandomSettings, SupervisedSettings
from pretrain.views import ViewSettings
from resim_bench.settings import (
    AtLeast0,
    Flag,
    Natural,
    Pixels,
    Positive,
    Schema,
    Share,
    Text,
    Whole,
    WholeOrNone,
    one_of,
    says,
)

OPTIM_WRAPPER = {"float32": "OptimWrapper", "bfloat16": "Bfloat16OptimWrapper"}


class SGD(Schema):
    """Of torch's, as the other optimisers."""

    type: Literal["SGD"]
    lr: Positive
    momentum: Share = 0.0
    dampening: Share = 0.0
    weight_decay: AtLeast0 = 0.0
    nesterov: Flag = False


class Adam(Schema):
    """Adam or AdamW."""

    type: Literal["Adam", "AdamW"]
    lr: Positive
    betas: Annotated[tuple[Share, Share], Strict(False), says("two numbers from 0 to 1")] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: AtLeast0 = 0.0
    amsgrad: Flag = False


class DatasetSettings(Schema):
    """The images: an ImageFolder `root`, and how many it has where it is what its name says."""

    name: Text
    root: Text
    images: Whole
    classes: Whole


class MonitorSettings(Schema):
    """Readings while it trains (`pretrain.monitor`): every so many epochs, of so many images of `data`."""

    every: Natural
    data: Text
    images: Whole
    size: Pixels


class Recipe(Schema):
    """A recipe; None is a setting that is not given, and never 0."""

    model: Annotated[MoCoSettings | SupervisedSettings | RandomSettings, Field(discriminator="type")]
    views: ViewSettings
    dataset: DatasetSettings
    optimizer: Annotated[SGD | Adam, Field(discriminator="type")]
    monitor: MonitorSettings
    batch: Whole
    epochs: Natural
    max_iters: WholeOrNone
    milestones: Annotated[tuple[Whole, ...], Strict(False), says("epochs, such as (30,60,90)")]
    precision: one_of(*OPTIM_WRAPPER)
    micro_batch: WholeOrNone
    workers: Natural
    log_interval: Whole
    calibration_batches: Annotated[Natural | None, says("a whole number of at least 0, or None")] = None

    @model_validator(mode="after")
    def _goes_together(self):
        trains = self.model.type != "Random"
        if trains and self.epochs == 0:
            raise ValueError("epochs is 0: give a whole number of at least 1")
        if not trains and self.calibration_batches is None:
            raise ValueError("calibration_batches is None: give a whole number of at least 0")
        group = getattr(self.model, "bn_group", self.batch)  # `train.check` holds it against a process's batch
        if group == 1 and self.views.size <= self.model.backbone.stride(4):
            raise ValueError(
                f"batch norm over one image needs a map of more than one cell, and views of {self.views.size} px end "
                "in one: set batch, model.bn_group or views.size larger"
            )
        if self.micro_batch is not None:
            self._check_micro_batch()
        if self.model.type == "MoCo":
            self._check_moco()
        return self

    def _check_micro_batch(self):
        if self.model.type != "MoCo":
            raise ValueError("micro_batch is for MoCo and ReSim in one process: set a smaller batch instead")
        if self.micro_batch % self.model.bn_group:
            raise ValueError(
                f"micro_batch of {self.micro_batch} is not a multiple of the batch-norm group of "
                f"{self.model.bn_group} images: give such a multiple"
            )

    def _check_moco(self):
        if self.model.queue % self.batch:
            raise ValueError(
                f"the queue of {self.model.queue} is not a multiple of the batch of {self.batch}: "
                "change model.queue or batch"
            )
        size, levels = self.views.size, self.model.levels.given()
        for source, level in levels.items():
            if level.window >= size:
                raise ValueError(
                    f"model.levels.{source}.window of {level.window} px does not fit a view of {size} px: "
                    "set it smaller, or views.size larger"
                )
            if level.negatives != "windows" and size <= 2 * level.map_stride:
                raise ValueError(
                    f"model.levels.{source}.negatives={level.negatives} averages 3 x 3 cells, and a view of {size} px "
                    f"has {-(-size // level.map_stride)} x {-(-size // level.map_stride)}: set views.size larger"
                )
        if levels and self.views.flip != "shared":
            raise ValueError('a recipe with levels needs views.flip="shared": regions correspond only under one flip')
