"""What a method is to the rest of the room."""

from typing import Any, ClassVar

from mmengine.model import BaseModel
from torch import Tensor, nn

from resim_bench.backbone import trunk_state
from resim_bench.settings import Schema


class Method(BaseModel):
    """A network with its loss, and what it asks of a recipe and of a training.

    A subclass registers itself with mmengine's `MODELS` under the name that a recipe gives as `model.type`. Its
    `forward` takes a batch of its samples and returns losses (`loss…`) and what else is to be logged.

    Attributes:
        Settings: the schema of a recipe's `model`, of which `type` is one word.
        samples: the data set of `pretrain.data` that its batches are made of.
        trains: whether it is trained at all.
        in_parts: whether a step can be taken in parts of a batch, `micro_batch` of a recipe.
        trunk: the network whose weights are transferred.
    """

    Settings: ClassVar[type[Schema]]
    samples: ClassVar[str] = "TwoViews"
    trains: ClassVar[bool] = True
    in_parts: ClassVar[bool] = False
    trunk: nn.Module

    @classmethod
    def complete(cls, model: dict) -> dict:
        """A recipe's `model` with what it has by default, so that a protocol states it and an option can change it."""
        return model

    @classmethod
    def check(cls, recipe: Any) -> None:
        """Refuse what does not go together with the rest of a recipe, a `pretrain.recipes.Recipe`.

        Raises:
            ValueError: saying what to change.
        """

    @classmethod
    def suit(cls, model: Any, facts: dict) -> None:
        """Set what of `model` the images decide."""

    @classmethod
    def sees_images(cls, recipe: Any) -> bool:
        """Whether it needs any."""
        return True

    @classmethod
    def collation(cls, recipe: Any) -> dict:
        """What makes a batch of samples."""
        return {"type": "default_collate"}

    @classmethod
    def parameter_groups(cls, recipe: Any) -> dict | None:
        """mmengine's `paramwise_cfg`: which parameters have another learning rate or weight decay."""
        return None

    def transferred(self) -> dict[str, Tensor]:
        """What a backbone file keeps of it once it is trained."""
        return trunk_state(self.trunk.state_dict())
