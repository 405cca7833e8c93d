"""What a recipe may say: the schema of `configs/*.py`, and which of its settings go together.

What a method, the encoder and the views read is described beside them; the rest of a recipe stands here.
"""

import functools
import operator
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, create_model, model_validator

from pretrain import methods
from pretrain.views import ViewSettings
from resim_bench.errors import UserError
from resim_bench.harness.precision import OPTIM_WRAPPER
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
    """A recipe; None is a setting that is not given, and never 0. What `model` may be, `schema` knows."""

    model: Any
    views: ViewSettings
    dataset: DatasetSettings
    optimizer: Annotated[SGD | Adam, Field(discriminator="type")]
    monitor: MonitorSettings
    batch: Whole
    epochs: Natural
    max_iters: WholeOrNone
    milestones: Annotated[tuple[Whole, ...], Strict(False), says("epochs, such as (30,60,90)")]
    keep: Annotated[tuple[Whole, ...], Strict(False), says("epochs, such as (100,200)")]
    precision: one_of(*OPTIM_WRAPPER)
    micro_batch: WholeOrNone
    workers: Natural
    log_interval: Whole
    custom_imports: dict | None = None  # mmengine has imported them
    calibration_batches: Annotated[Natural | None, says("a whole number of at least 0, or None")] = None

    @model_validator(mode="after")
    def _goes_together(self):
        method = methods.of(self)
        if method.trains and self.epochs == 0:
            raise ValueError("epochs is 0: give a whole number of at least 1")
        if self.keep and not method.trains:
            raise ValueError("keep is for what trains: leave it out")
        if max(self.keep, default=0) > self.epochs:
            raise ValueError(f"keep has epoch {max(self.keep)}, and there are {self.epochs}: give one of these")
        if getattr(self.model, "backbone", None) is None:
            raise ValueError("model has no backbone: a method's Settings name so the trunk that is transferred")
        group = getattr(self.model, "bn_group", self.batch)  # `train.check` holds it against a process's batch
        if group == 1 and self.views.size <= self.model.backbone.stride(4):
            raise ValueError(
                f"batch norm over one image needs a map of more than one cell, and views of {self.views.size} px end "
                "in one: set batch, model.bn_group or views.size larger"
            )
        if self.micro_batch is not None:
            if not method.in_parts:
                raise ValueError(f"{IN_PARTS}: set a smaller batch instead")
            if self.micro_batch % group:
                raise ValueError(
                    f"micro_batch of {self.micro_batch} is not a multiple of the batch-norm group of {group} images: "
                    "give such a multiple"
                )
        method.check(self)
        return self


IN_PARTS = "micro_batch is for MoCo and what is built on it, in one process"


@functools.cache
def _schema(known: tuple[type[methods.Method], ...]) -> type[Recipe]:
    models = functools.reduce(operator.or_, (method.Settings for method in known))
    return create_model("Recipe", __base__=Recipe, model=(Annotated[models, Field(discriminator="type")], ...))


def schema() -> type[Recipe]:
    """The schema of recipes of every method that was imported.

    Raises:
        UserError: one of them has no settings.
    """
    for method in methods.known():
        if not hasattr(method, "Settings"):
            raise UserError(f"the method {method.__name__} has no Settings: give it the schema of a recipe's model")
    return _schema(methods.known())
