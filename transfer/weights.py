"""What a backbone file fills in a detector, and what stays as it was loaded."""

import torch
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from resim_bench import backbone
from resim_bench.errors import UserError

# Where MMDetection's neck has the convolutions of the pre-trained feature pyramid (docs/sources.md, resim-release).
# Their biases have no place: the neck has norms instead.
_NECK = {f"fpn_lateral{level}.weight": f"neck.lateral_convs.{level - 2}.conv.weight" for level in (3, 4, 5)} | {
    f"fpn_output{level}.weight": f"neck.fpn_convs.{level - 2}.conv.weight" for level in (3, 4)
}


def trunk_places(model: nn.Module) -> dict[str, str]:
    """Where the detector has a pre-trained trunk: {torchvision's key: the detector's}."""
    places = {key: f"backbone.{key}" for key in model.backbone.state_dict()}
    shared = model.roi_head.shared_head.state_dict() if model.roi_head.with_shared_head else {}
    return places | {key: f"roi_head.shared_head.{key}" for key in shared if key.startswith("layer4.")}


def places_of(model: nn.Module, neck: bool) -> dict[str, str]:
    """Where the detector has what it takes from a backbone file: {the file's key: the detector's}."""
    return trunk_places(model) | (_NECK if neck else {})


def check_pyramid(state_dict: dict[str, Tensor]) -> None:
    """Refuse a backbone file that has nothing for the neck.

    Raises:
        UserError: there is no feature pyramid.
    """
    if not backbone.pyramid_state(state_dict):
        raise UserError(
            "the backbone file has no feature pyramid for the neck: give one of a pre-training with it (resim-fpn), "
            "or take the protocol without -fpn-t"
        )


def load(model: nn.Module, state_dict: dict[str, Tensor], neck: bool = False) -> None:
    """Copy a torchvision ResNet trunk (no `fc`) into the detector, strictly both ways; with `neck` its pyramid, too.

    Without `neck` the file may hold a pyramid all the same, which is dropped.

    Raises:
        UserError: a key is missing, left over, or of another shape; nothing is copied then.
    """
    given = backbone.trunk_state(state_dict)
    if neck:
        check_pyramid(state_dict)
        pyramid = backbone.pyramid_state(state_dict)
        given |= {key: value for key, value in pyramid.items() if not key.endswith(".bias")}
    own = model.state_dict()
    tensors = {key: own[place] for key, place in places_of(model, neck).items()}
    wrong = {
        "lacks": sorted(tensors.keys() - given.keys()),
        "has no place for": sorted(given.keys() - tensors.keys()),
        "has another shape for": sorted(k for k in tensors.keys() & given if tensors[k].shape != given[k].shape),
    }
    said = [f"{what} {', '.join(keys[:3])}{_more(keys)}" for what, keys in wrong.items() if keys]
    if said:
        raise UserError(
            f"the backbone does not fit the detector, it {' and '.join(said)}: give one of its architecture"
        )
    with torch.no_grad():
        for key, value in tensors.items():
            value.copy_(given[key])


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 3} more" if len(keys) > 3 else ""


def parameters(model: nn.Module, state_dict: dict[str, Tensor], neck: bool) -> dict[str, list[str]]:
    """What becomes of every tensor when training starts from a file.

    `loaded` and `fresh` are the detector's, `dropped` the file's; `backbone` stands for all tensors of that module.
    """
    own, places = list(model.state_dict()), places_of(model, neck)
    filled = set(places.values())
    return {
        "loaded": _modules([key for key in own if key in filled], own),
        "dropped": _modules([key for key in state_dict if key not in places], state_dict),
        "fresh": _modules([key for key in own if key not in filled], own),
    }


def _modules(keys, everything) -> list[str]:
    """The shortest dotted prefixes that cover `keys` and nothing else of `everything`."""

    def prefixes(key):
        parts = key.split(".")
        return [".".join(parts[: n + 1]) for n in range(len(parts))]

    chosen = set(keys)
    others = {prefix for key in everything if key not in chosen for prefix in prefixes(key)}
    return list(dict.fromkeys(next(p for p in prefixes(key) if p not in others) for key in keys))


def frozen_keys(model: nn.Module) -> list[str]:
    """The trunk's keys that training must not touch: no gradient, or statistics of a norm in evaluation mode.

    Sets training mode, as the loop does before each iteration.
    """
    model.train()
    parts = [model.backbone, model.roi_head.shared_head] if model.roi_head.with_shared_head else [model.backbone]
    frozen = set()
    for part in parts:
        frozen |= {name for name, parameter in part.named_parameters() if not parameter.requires_grad}
        for prefix, module in part.named_modules():
            if isinstance(module, _BatchNorm) and not module.training:
                frozen |= {f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)}
    return sorted(frozen & trunk_places(model).keys())
