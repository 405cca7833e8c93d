"""Backbones from anywhere: a public checkpoint becomes a backbone file, and a backbone file becomes Detectron2's.

`reading` opens a file without executing anything in it, `trunks` finds the ResNet-50 among its tensors.
"""

import pickle
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from resim_bench import backbone, files
from resim_bench.checkpoints import reading, trunks
from resim_bench.errors import UserError
from resim_bench.harness import runs


class Report(NamedTuple):
    """What an import did: the backbone `path`, how many tensors it took from under `prefix`, and what it left.

    `left` counts the other tensors of the file by the beginning of their keys; `written` is False when this very file
    was imported before.
    """

    path: Path
    source: str
    prefix: str
    used: int
    used_of_pyramid: int
    left: dict[str, int]
    written: bool

    def summary(self) -> str:
        """The report as a sentence."""
        place = f"under '{self.prefix}'" if self.prefix else "at the top"
        pyramid = f", {self.used_of_pyramid} of them of the feature pyramid" if self.used_of_pyramid else ""
        left = ", ".join(f"{beginning} ({count})" for beginning, count in self.left.items()) or "nothing"
        done = f"wrote {self.path}" if self.written else f"{self.path} holds this very file already"
        return f"{self.source}: used {self.used} tensors {place}{pyramid}; left {left}; {done}"


def import_checkpoint(file: Path, given_id: str, work_dir: Path = Path("work_dirs")) -> Report:
    """Turn a public ResNet-50 checkpoint into the backbone file of `given_id` below `work_dir`.

    Raises:
        UserError: the id is not `given-NAME` or belongs to another file; the file is missing or damaged, wants to
            execute something, or does not fill the trunk of a ResNet-50 exactly.
    """
    file = Path(file)
    if not re.fullmatch(r"given-[A-Za-z0-9][A-Za-z0-9._-]*", given_id):
        raise UserError(f"'{given_id}' cannot name imported weights: choose an id such as given-moco")
    tensors, epochs = reading.read(file)
    trunk = trunks.find(tensors, file)
    sha256 = backbone.digest(file)
    path = backbone.path(work_dir, given_id, seed=0)
    known = path.exists()
    if known and backbone.load(path)[1].get("data", {}).get("sha256") != sha256:
        raise UserError(f"{given_id} holds another file than {file} already: delete {path}, or choose another id")

    state = trunks.state_dict(trunk, tensors)
    if not known:
        provenance = {
            "id": given_id,
            "seed": 0,
            "arch": trunks.ARCH,
            "epochs": epochs,
            "protocol": {"imported": file.name},
            "overrides": {},
            "deviations": {},
            "data": {"source": file.name, "sha256": sha256, "digest": sha256},
            **runs.environment(),
        }
        backbone.save(path, state, provenance)
    used = set(trunk.keys.values())
    return Report(
        path=path,
        source=file.name,
        prefix=trunk.prefix,
        used=len(used),
        used_of_pyramid=len(backbone.pyramid_state(state)),
        left=dict(Counter(_beginning(key, trunk.prefix) for key in tensors if key not in used)),
        written=not known,
    )


def _beginning(key: str, prefix: str) -> str:
    """Where a key that is left belongs: its first parts, as deep as the trunk lies and without numbers."""
    parts = key.split(".")
    depth = prefix.count(".") + key.startswith(prefix)
    numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: min([depth, *numbers])] or parts[:1])


def export(backbone_file: Path, target: Path) -> None:
    """Write a backbone file in Detectron2's layout: a pickle of numpy arrays under Detectron2's names.

    Reading it takes numpy 1.26 or later. A target that holds this very export is left as it is.

    Raises:
        UserError: no backbone file; the target is another file, or its name is not one that Detectron2 unpickles.
    """
    target = Path(target)
    if target.suffix != ".pkl":
        raise UserError(f"Detectron2 unpickles a file only when its name ends in .pkl: name it {target.stem}.pkl")
    state, _ = backbone.load(backbone_file)
    model = {trunks.detectron2_name(name): tensor.numpy() for name, tensor in state.items()}
    content = pickle.dumps({"model": model, "__author__": "resim-bench", "matching_heuristics": True}, protocol=4)
    if target.exists():
        if target.is_file() and target.read_bytes() == content:
            return
        raise UserError(f"{target} is another file already: delete it, or choose another name")
    with files.replacing(target) as stream:
        stream.write(content)
