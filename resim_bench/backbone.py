"""The file between pre-training and transfer: a ResNet trunk with torchvision's key names, and where it is from.

Pre-training with a feature pyramid leaves its convolutions, too: `fpn_lateral{3,4,5}` and `fpn_output{3,4}`, each with
`weight` and `bias` (the names of the released checkpoints).

The format is safetensors: reading it executes nothing. Provenance (recipe as resolved, epochs done, data,
commit, versions) travels in the file's header as JSON, and with it `sha256`, the checksum of weights and provenance.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from resim_bench import files
from resim_bench.errors import UserError

CHECKSUM = "sha256"
WIDTH = 64  # of every ResNet that has a name: an architecture that names none has this one


def path(work_dir: Path, pretrain_id: str, seed: int) -> Path:
    """Where a pre-training leaves its backbone; that of given weights has seed 0."""
    return Path(work_dir) / "pretrain" / pretrain_id / f"seed-{seed}" / "backbone.safetensors"


def trunk_state(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries that make the trunk of a torchvision ResNet: all but the classifier `fc` and the pyramid."""
    return {key: value for key, value in state_dict.items() if not key.startswith(("fc.", "fpn_"))}


def pyramid_state(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of the feature pyramid; none is an empty dict."""
    return {key: value for key, value in state_dict.items() if key.startswith("fpn_")}


def save(path: Path, state_dict: dict[str, Tensor], provenance: dict) -> None:
    """Write trunk and provenance: a reader finds the whole file, on the disk, or none.

    Raises:
        UserError: a weight is not finite.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
    wrong = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise UserError(f"the weights of {wrong[0]} are not finite, so no backbone is written: lower the learning rate")
    provenance = provenance | {CHECKSUM: _checksum(tensors, provenance)}
    with files.replacing(path) as stream:
        stream.write(serialised(tensors, metadata={"provenance": json.dumps(provenance, sort_keys=True)}))


def _checksum(tensors: dict[str, Tensor], provenance: dict) -> str:
    total = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode())
    for key, value in sorted(tensors.items()):
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read `(state_dict, provenance)`; a file that has no checksum, from before there was one, is taken as it is.

    Raises:
        UserError: the file is missing, damaged, changed since it was written, or was not written by this suite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no backbone file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            provenance = (file.metadata() or {}).get("provenance")
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no backbone file of this suite, or is damaged ({error})") from None
    if provenance is None:
        raise UserError(f"{path} is a safetensors file without provenance: it was not written by this suite")
    try:
        content = json.loads(provenance)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} has a provenance that is damaged: make or import it again")
    stated = {key: value for key, value in content.items() if key != CHECKSUM}
    if CHECKSUM in content and content[CHECKSUM] != _checksum(state_dict, stated):
        raise UserError(f"{path} has changed since it was written (another checksum): make or import it again")
    return state_dict, content


def architecture(provenance: dict) -> dict:
    """`depth`, `strides` and `width` of the ResNet that a provenance is of."""
    return {"width": WIDTH} | provenance["arch"]


def spell(arch: dict) -> str:
    """An architecture as sentences name it."""
    return f"depth {arch['depth']}, strides {arch['strides']} and width {arch['width']}"


def digest(path: Path) -> str:
    """sha256 of the file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
