"""Backbones from anywhere: a public checkpoint becomes a backbone file, and a backbone file what other programs read.

`reading` opens a file without executing anything in it, `trunks` finds the ResNet-50 among its tensors; `layouts` has
what other programs read, `card` what people do.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from resim_bench import backbone, files
from resim_bench.checkpoints import layouts, reading, trunks
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


def export(backbone_file: Path, target: str | Path, layout: str | None = None) -> str:
    """Write a backbone file in the layout of another program, and say what was written and left out, in a line.

    Files that hold this very export are left as they are.

    Args:
        target: `NAME.pkl`, `NAME.safetensors`, `NAME.pth`, or a folder, whose name has no ending or ends in a slash.
        layout: a key of `layouts.LAYOUTS`; by default the one that the target's ending belongs to.

    Raises:
        UserError: no backbone file; the layout has no such target or no such network; other files stand there.
    """
    layout, writers = layouts.choose(str(target), layout)
    source = layouts.read(backbone_file)
    left = layouts.left_out(layout, source)
    contents = {Path(target, name): write(source) for name, write in writers.items()}
    missing = [place for place, content in contents.items() if not _holds(place, content)]
    for place in missing:
        with files.replacing(place) as stream:
            stream.write(contents[place])
    return "; ".join([f"wrote {target}", *left])


def _holds(place: Path, content: bytes) -> bool:
    """Whether a file is there and has this content; refuse one that has another."""
    if place.exists() and not (place.is_file() and place.read_bytes() == content):
        raise UserError(f"{place} is another file already: delete it, or choose another name")
    return place.exists()
