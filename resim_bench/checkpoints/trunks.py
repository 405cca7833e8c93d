"""The one rule that finds a backbone in any layout: the prefix whose keys are exactly a ResNet-50's.

The names are torchvision's, as in the files of MoCo, ReSim, SwAV, VISSL, DenseCL and OpenSelfSup, or Detectron2's.
Momentum copies (`encoder_k`) are set aside; heads, queues and optimiser states are not looked at.
"""

import functools
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

from resim_bench import backbone
from resim_bench.errors import UserError

ARCH = {"depth": 50, "strides": [1, 2, 2, 2]}
_COPY = re.compile(r"(^|[._])(encoder_k|momentum|target|teacher|ema)[._]")
_INSIDE = re.compile(r"(stem\.)?(conv|bn)\d+\.|(layer|res)\d+\.")  # a key that claims to be a trunk's
_TO_DETECTRON2 = (
    (r"^(conv|bn)1", r"stem.\g<1>1"),
    (r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}"),
    (r"\bbn(\d)", r"conv\1.norm"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
    (r"^fpn_", "backbone.fpn_"),
)


class Trunk(NamedTuple):
    """Keys of a file that belong to a trunk, `{torchvision's name: key}`, and those inside it that no ResNet-50 has."""

    prefix: str
    keys: dict[str, str]
    unknown: list[str]


def detectron2_name(name: str) -> str:
    """Detectron2's name of a tensor of torchvision's ResNet, or of the pyramid beside it."""
    for pattern, replacement in _TO_DETECTRON2:
        name = re.sub(pattern, replacement, name)
    return name


def find(tensors: dict[str, Tensor], file: Path) -> Trunk:
    """The trunk among the tensors of `file`.

    A copy is never taken for an original that has a fault, only where there is no original at all.

    Raises:
        UserError: no prefix fills a ResNet-50 exactly, or two do with different weights.
    """
    candidates = _candidates(tensors)
    candidates = [trunk for trunk in candidates if not _COPY.search(trunk.prefix)] or candidates
    if not candidates:
        raise UserError(f"{file} holds no ResNet-50 among its {len(tensors)} tensors: give a checkpoint that does")
    fitting = [trunk for trunk in candidates if not _problem(trunk, tensors)]
    if not fitting:
        place = f" under '{candidates[0].prefix}'" if candidates[0].prefix else ""
        problem = _problem(candidates[0], tensors)
        raise UserError(f"{file} holds no plain ResNet-50{place}: {problem}; give a checkpoint that fills one exactly")
    first, *others = fitting
    for other in others:  # OpenSelfSup saves the same trunk by two names
        same = first.keys.keys() & other.keys.keys()
        if not all(torch.equal(tensors[first.keys[name]], tensors[other.keys[name]]) for name in same):
            both = f"'{first.prefix}' and '{other.prefix}'"
            raise UserError(f"{file} holds two trunks, {both}: save the one that you mean alone and import that")
    return first


def state_dict(trunk: Trunk, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trunk by torchvision's names and in their order, then the pyramid.

    Batch-norm counters (`num_batches_tracked`, which no number depends on) are 0 where the file has none.
    """
    names = [*_trunk_shapes(), *(name for name in _pyramid_shapes() if name in trunk.keys)]
    zero = torch.zeros((), dtype=torch.long)
    return {name: (tensors[trunk.keys[name]] if name in trunk.keys else zero).clone() for name in names}


@functools.cache
def _trunk_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = torchvision.models.resnet50().state_dict()
    return {name: tuple(value.shape) for name, value in backbone.trunk_state(state).items()}


@functools.cache
def _pyramid_shapes() -> dict[str, tuple[int, ...]]:
    """Convolutions of ReSim-FPN's pre-training: laterals from C3 to C5, outputs P3 and P4."""
    weights = {f"fpn_lateral{level}": (256, 64 * 2**level, 1, 1) for level in (3, 4, 5)}
    weights |= {f"fpn_output{level}": (256, 256, 3, 3) for level in (3, 4)}
    return {f"{name}.weight": shape for name, shape in weights.items()} | {f"{name}.bias": (256,) for name in weights}


@functools.cache
def _spellings() -> tuple[dict[str, str], dict[str, str]]:
    """`{name in a file: torchvision's name}`, for files with torchvision's names and for files with Detectron2's."""
    names = [*_trunk_shapes(), *_pyramid_shapes()]
    return {name: name for name in names}, {detectron2_name(name): name for name in names}


def _candidates(tensors: dict[str, Tensor]) -> list[Trunk]:
    """Whatever has a third of the names (a ResNet-18 has), the fullest first."""
    found: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for key in tensors:
        for start in [0, *(dot.end() for dot in re.finditer(r"\.", key))]:
            for spelling, names in enumerate(_spellings()):
                if key[start:] in names:
                    found[key[:start], spelling][names[key[start:]]] = key
    enough = sum(map(_is_needed, _trunk_shapes())) / 3
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [Trunk(prefix, keys, _unknown(tensors, prefix, keys)) for (prefix, _), keys in ordered if len(keys) > enough]


def _unknown(tensors: dict[str, Tensor], prefix: str, keys: dict[str, str]) -> list[str]:
    inside = (key for key in tensors if key.startswith(prefix) and _INSIDE.match(key, len(prefix)))
    return [key for key in inside if key not in set(keys.values())]


def _is_needed(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _problem(trunk: Trunk, tensors: dict[str, Tensor]) -> str:
    """Why the keys are not exactly a ResNet-50's, with the whole pyramid or none of it; empty when they are."""
    shapes = _trunk_shapes() | (_pyramid_shapes() if trunk.keys.keys() & _pyramid_shapes().keys() else {})
    missing = [name for name in shapes if _is_needed(name) and name not in trunk.keys]
    wrong = [name for name, key in trunk.keys.items() if tuple(tensors[key].shape) != shapes[name]]
    said = [f"{_first(missing)} is missing"] if missing else []
    said += [f"{_first(trunk.unknown)} should not be there"] if trunk.unknown else []
    if wrong:
        found, wanted = tuple(tensors[trunk.keys[wrong[0]]].shape), shapes[wrong[0]]
        said.append(f"the shape of {_first(wrong)} is {found}, not {wanted}")
    return ", and ".join(said) or _problem_of_values(trunk, tensors)


def _problem_of_values(trunk: Trunk, tensors: dict[str, Tensor]) -> str:
    """What is wrong with the numbers of a trunk whose names and shapes fit; empty when nothing is."""
    for name, key in trunk.keys.items():
        value = tensors[key]
        if not _is_needed(name):
            continue
        if value.layout is not torch.strided or value.is_meta or not value.is_floating_point():
            kind = (
                "without values"
                if value.is_meta
                else f"{value.layout} {value.dtype}".replace("torch.", "").removeprefix("strided ")
            )
            return f"{name} is no plain tensor of floating-point numbers ({kind})"
        if not value.isfinite().all():
            return f"{name} has values that are not finite"
        if name.endswith("running_var") and (value < 0).any():
            return f"{name} is a variance below 0"
    return ""


def _first(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
