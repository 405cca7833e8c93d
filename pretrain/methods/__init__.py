"""The methods, a module each, found by the `type` of a recipe's `model`.

A method of your own is a module like these that a recipe imports (`custom_imports`); see CONTRIBUTING.md.
"""

from mmengine.registry import MODELS

from pretrain.methods import densecl, moco, supervised, untrained  # noqa: F401 (they register theirs)
from pretrain.methods.method import Method


def known() -> tuple[type[Method], ...]:
    """Every method that was imported."""
    return tuple(m for m in MODELS.module_dict.values() if isinstance(m, type) and issubclass(m, Method))


def of(recipe) -> type[Method]:
    """The method that a recipe's `model` names."""
    return MODELS.get(recipe.model.type)
