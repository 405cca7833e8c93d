"""Reading a checkpoint of unknown origin: nothing in it is executed.

torch's files are read with `weights_only`, pickles by an unpickler that knows numpy's arrays and nothing else. What a
file is, its content says and never its name: the ReSim authors' converted file is torch's, with numpy arrays inside.
"""

import codecs
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from resim_bench.errors import UserError

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # how torch.save began before it wrote zip files
_REBUILD: tuple[Any, ...] = (np.empty(0).__reduce__()[0], np.float64().__reduce__()[0])  # an array, a scalar


class _Inert:
    """What stands for objects that people save beside weights: it holds nothing and does nothing."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass

    def __setitem__(self, *_):
        pass


_SAVED_BESIDE = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    # A history's pickle names its methods, too, in the older protocols by `getattr`: here that gets nothing.
    *(f"mmengine.logging.history_buffer.HistoryBuffer{m}" for m in ("", ".mean", ".max", ".min", ".current")),
    "builtins.getattr",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
)
_ALLOWED: dict[str, Any] = {
    **dict.fromkeys(_SAVED_BESIDE, _Inert),
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": codecs.encode,  # how an old pickle spells bytes
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    # numpy before and since version 2
    **{f"numpy.{core}.multiarray.{f.__name__}": f for core in ("core", "_core") for f in _REBUILD},
}


def read(file: Path) -> tuple[dict[str, Tensor], int | None]:
    """Every tensor or array of a checkpoint by its dotted key, and the epochs that it names at its top.

    Args:
        file: torch's zip or legacy format, safetensors, or a pickle of numpy arrays.

    Raises:
        UserError: the file is missing, empty or damaged, or wants to call something that weights do not need.
    """
    if file.is_dir():
        unpacked = "an unpacked checkpoint" if next(file.rglob("data.pkl"), None) else "a folder"
        raise UserError(f"{file} is {unpacked}, not a checkpoint file: give the file as it was downloaded")
    if not file.is_file():
        raise UserError(f"there is no checkpoint {file}")
    if not file.stat().st_size:
        raise UserError(f"{file} is empty: download it again")
    try:
        _check_archive(file)
        content = _content(file)
        leaves = _leaves(content)
        arrays = {key: torch.tensor(value) for key, value in leaves.items() if _is_numeric_array(value)}
        tensors = {key: value.detach() for key, value in leaves.items() if isinstance(value, Tensor)} | arrays
    except UserError:
        raise
    except Exception as error:  # what damaged bytes raise, no list can hold
        wanted = re.search(r"GLOBAL (\S*\w)(?!\S)", str(error))
        if wanted:
            raise UserError(
                f"{file} wants to call {wanted[1]}, which weights do not need: do not trust it, or where you do, save "
                "its tensors alone and import those"
            ) from None
        reason = re.split(r"\.\s|\n", str(error).strip() or type(error).__name__)[0]
        raise UserError(f"{file} is no checkpoint, or is cut short ({reason}): download it again") from None
    epoch = content.get("epoch") if isinstance(content, dict) else None
    return tensors, epoch if type(epoch) is int else None


_MOST_PACKED = 20  # weights hardly get smaller when they are packed


def _check_archive(file: Path) -> None:
    """Refuse a zip file that is a program, or far larger than it looks."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise UserError(f"{file} is a TorchScript program: save its state_dict() with torch.save and import that")
    unpacked, size = sum(entry.file_size for entry in entries), file.stat().st_size
    if unpacked > _MOST_PACKED * size:
        raise UserError(f"{file} unpacks to {unpacked / size:.0f} times its size, which no weights do: do not trust it")


def _leaves(content) -> dict[str, Any]:
    """What nested dicts hold, by dotted keys; a dict that stands in several places counts at the first."""
    leaves, seen, waiting = {}, set(), [("", content)]
    while waiting:
        prefix, value = waiting.pop()
        if not isinstance(value, dict):
            leaves[prefix] = value
        elif id(value) not in seen:
            seen.add(id(value))
            inner = [(f"{prefix}.{key}" if prefix else str(key), entry) for key, entry in value.items()]
            waiting += reversed(inner)
    return leaves


def _content(file: Path):
    with open(file, "rb") as stream:
        head = stream.read(32)
        if head.startswith((_ZIP, _LEGACY)):
            dtypes = [type(np.dtype(code)) for code in np.typecodes["All"]]
            allowed = [(value, name) for name, value in _ALLOWED.items()]
            with (
                torch.serialization.safe_globals([*dtypes, *allowed]),
                torch.sparse.check_sparse_tensor_invariants(),
                warnings.catch_warnings(action="ignore"),  # of torch's to itself
            ):
                return torch.load(file, map_location="cpu", weights_only=True)
        if head[8:9] == b"{":
            return load_file(file)
        stream.seek(0)
        return _ArrayUnpickler(stream, encoding="latin1").load()  # latin1: arrays that Python 2 wrote


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}") from None  # torch's word for it


def _is_numeric_array(value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
