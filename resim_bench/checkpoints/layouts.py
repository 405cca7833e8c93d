"""A backbone as other programs read it: a table of layouts and of the endings that each is written under.

torchvision's names of tensors are those of the backbone file, and timm's are torchvision's; neither has a ResNet with a
feature pyramid. Detectron2 has names of its own. A folder is a repository of the Hugging Face hub, as timm loads it.
"""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as serialised

from resim_bench import backbone
from resim_bench.checkpoints import card, trunks
from resim_bench.checkpoints.card import Source
from resim_bench.errors import UserError

Writer = Callable[[Source], bytes]


def _detectron2(tensors: dict) -> dict:
    """What Detectron2's checkpointer takes; its heuristics match names by their ends, whatever a model puts before."""
    model = {trunks.detectron2_name(name): tensor for name, tensor in tensors.items()}
    return {"model": model, "__author__": "resim-bench", "matching_heuristics": True}


def _pkl(source: Source) -> bytes:
    arrays = {name: tensor.numpy() for name, tensor in source.state.items()}
    packed = pickle.dumps(_detectron2(arrays), protocol=3)  # of whose names each is a line
    return packed.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")  # which numpy 1 reads, too


def _torch_saved(content: dict) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _safetensors(source: Source) -> bytes:
    return serialised(backbone.trunk_state(source.state), metadata={"format": "pt"})


def _pth(source: Source) -> bytes:
    return _torch_saved(backbone.trunk_state(source.state))


ITSELF = ""  # the target itself; other names are of files in it
FOLDER = os.sep
LAYOUTS: dict[str, dict[str, dict[str, Writer]]] = {
    "detectron2": {
        ".pkl": {ITSELF: _pkl},
        ".pth": {ITSELF: lambda source: _torch_saved(_detectron2(source.state))},
    },
    "torchvision": {".safetensors": {ITSELF: _safetensors}, ".pth": {ITSELF: _pth}},
    "timm": {
        ".safetensors": {ITSELF: _safetensors},
        ".pth": {ITSELF: _pth},
        FOLDER: {"model.safetensors": _safetensors, "config.json": card.config, "README.md": card.readme},
    },
}
DEFAULT = {".pkl": "detectron2", ".safetensors": "torchvision", ".pth": "torchvision", FOLDER: "timm"}


def choose(target: str, layout: str | None = None) -> tuple[str, dict[str, Writer]]:
    """The layout of a target, and what writes each of its files, by their names below the target.

    Raises:
        UserError: no layout, or not this one, is written under such a name.
    """
    ending = FOLDER if target.endswith(os.sep) else Path(target).suffix or FOLDER
    if ending not in DEFAULT:
        raise UserError(f"{target} ends in {ending}, as no layout does: name it {_spelled(DEFAULT)}")
    layout = layout or DEFAULT[ending]
    if ending not in LAYOUTS[layout]:
        raise UserError(f"{target} is nothing that {layout} reads: name it {_spelled(LAYOUTS[layout])}")
    return layout, LAYOUTS[layout][ending]


def _spelled(endings) -> str:
    *others, last = ["a FOLDER/" if ending == FOLDER else f"NAME{ending}" for ending in endings]
    return f"{', '.join(others)} or {last}"


def read(file: Path) -> Source:
    """A backbone file to export.

    Raises:
        UserError: it is none.
    """
    state, provenance = backbone.load(file)
    return Source(state, provenance, backbone.digest(file))


def left_out(layout: str, source: Source) -> list[str]:
    """What a layout does not say of a backbone, a clause each.

    Raises:
        UserError: timm has no network of this architecture, and the hub builds none that timm has not.
    """
    if layout == "detectron2":
        return []
    said = []
    if pyramid := backbone.pyramid_state(source.state):
        said.append(f"left out the feature pyramid ({len(pyramid)} tensors), which {layout}'s ResNets do not have")
    if card.architecture(source.provenance) is None:
        arch = backbone.spell(backbone.architecture(source.provenance))
        if layout == "timm":
            raise UserError(
                f"timm has no ResNet of {arch}, so neither it nor the hub could build this backbone's: "
                "write NAME.safetensors or NAME.pth with --layout torchvision"
            )
        said.append(f"torchvision has no ResNet of {arch}: build one before you load it")
    return said
