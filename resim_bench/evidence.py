"""Kept records, folded: a line per trial, a file per study, and a file for each value that trials have in common.

    <root>/<study>.jsonl             what one trial found, by its digest what it shares
    <root>/protocols/<digest>.json   a recipe as it resolved, or a protocol; tables/protocols.toml has their digests
    <root>/facts/<digest>.json       data, versions, counts of parameters

Unfolding gives back what was folded. A line is never changed, and a new one is put behind the others.
"""

import copy
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

from resim_bench import files, record
from resim_bench.errors import UserError

SHARED = {  # what is folded, and into which folder
    ("pretrain", "protocol"): "protocols",
    ("transfer", "protocol"): "protocols",
    ("pretrain", "data"): "facts",
    ("transfer", "data"): "facts",
    ("transfer", "parameters"): "facts",
    ("transfer", "survey"): "facts",
    ("versions",): "facts",
}
LOCK = ".lock"
FOLDERS = tuple(dict.fromkeys(SHARED.values()))


def read(root: Path) -> list[dict]:
    """All folded records of a folder.

    Raises:
        UserError: a line is no record or has changed, a shared value is missing or has changed, or a trial is there
            twice.
    """
    found: dict[tuple, str] = {}
    values: dict[Path, Any] = {}  # each is read once
    records = []
    for file in sorted(Path(root).glob("*.jsonl")):
        for number, line in enumerate(_lines(file), 1):
            where = f"line {number} of {file}"
            entry = _unfolded(line, Path(root), where, values)
            record.check(entry, where)
            names = record.key(entry)
            if names in found:
                raise UserError(f"{where} records a trial that {found[names]} does, too: delete one of them")
            found[names] = where
            records.append(entry)
    return records


def read_all(*roots) -> list[dict]:
    """All records below the roots, sorted by trial; of one trial, those of earlier roots come first.

    A root has a file per trial, as `record.write` leaves them, or kept records. A root that does not exist holds none.
    Raises UserError at the first record that is refused.
    """
    records = []
    for root in map(Path, roots):
        for file in sorted(root.rglob("*.json")):
            inside = file.relative_to(root).parts
            # Notebooks and file managers leave copies in hidden folders.
            shared = inside[0] in FOLDERS and len(inside) == 2  # a record stands one folder deeper
            if not shared and not any(part.startswith(".") for part in inside):
                records.append(record.read(file))
        records += read(root)
    return sorted(records, key=record.key)


def keep(
    source_root: Path, target_root: Path, file_of: Callable[[dict], str], trials: Container[tuple] | None = None
) -> list[tuple]:
    """Fold the records below `source_root` (of these trials) that `target_root` lacks; returns their trials.

    Args:
        file_of: the name of the file that a record belongs into, without an ending.

    Raises:
        UserError: a trial is kept already with another content (evidence is never overwritten), or another process
            keeps records there; nothing is written.
    """
    target_root.mkdir(parents=True, exist_ok=True)
    with files.locked(target_root / LOCK, str(target_root)):
        return _keep(source_root, target_root, file_of, trials)


def refuse_locked(root: Path) -> None:
    """Refuse where another process keeps records; the lock that a killed one left goes.

    Raises:
        UserError: as above.
    """
    files.refuse_locked(Path(root) / LOCK, str(root))


def _keep(source_root, target_root, file_of, trials) -> list[tuple]:
    kept = {record.key(entry): entry for entry in read_all(target_root)}
    new: dict[str, list[dict]] = defaultdict(list)
    for entry in read_all(source_root):
        names = record.key(entry)
        if trials is not None and names not in trials:
            continue
        if names not in kept:
            new[file_of(entry)].append(entry)
        elif record.content(kept[names]) != record.content(entry):
            raise UserError(
                f"{target_root} already records the trial {record.path('', *names)} with another content than "
                f"{record.path(source_root, *names)}: delete the one that is not to be kept"
            )
    for name, entries in new.items():
        write(target_root, name, entries)
    return [record.key(entry) for entries in new.values() for entry in entries]


def write(root: Path, name: str, entries: Iterable[dict]) -> None:
    """Put records behind those of a file."""
    file = Path(root) / f"{name}.jsonl"
    before = file.read_text("utf-8") if file.exists() else ""
    if before and not before.endswith("\n"):  # an editor left it so: its last record keeps a line of its own
        before += "\n"
    lines = [json.dumps(_folded(entry, Path(root)), sort_keys=True) + "\n" for entry in entries]
    with files.replacing(file) as stream:
        stream.write((before + "".join(lines)).encode())


def _folded(entry: dict, root: Path) -> dict:
    """A record whose shared values are their digests; the values are written where they are not there yet."""
    entry = copy.deepcopy(entry)
    for place, folder in SHARED.items():
        *above, key = place
        inside = functools.reduce(dict.__getitem__, above, entry)
        if key not in inside:
            continue
        digest = record.digest(inside[key])
        value = root / folder / f"{digest}.json"
        if not value.exists():
            with files.replacing(value) as stream:
                stream.write(_text(inside[key]).encode())
        inside[key] = digest
    return entry


def _text(value) -> str:
    """A value as JSON, of an object a key per line: as few lines as one can still compare."""
    if not isinstance(value, dict):
        return json.dumps(value, sort_keys=True) + "\n"
    lines = (f" {json.dumps(key)}: {json.dumps(value[key], sort_keys=True)}" for key in sorted(value))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _unfolded(entry: dict, root: Path, where: str, values: dict[Path, Any]) -> dict:
    for place, folder in SHARED.items():
        *above, key = place
        inside = functools.reduce(lambda node, name: node.get(name, {}), above, entry)
        if key in inside:
            file = root / folder / f"{inside[key]}.json"
            if file not in values:
                values[file] = _value(file, where)
            inside[key] = values[file]  # one for all records, which nobody changes: copies took a tenth of `tables`
    return entry


def _lines(file: Path) -> list[dict]:
    found = []
    for number, line in enumerate(files.read(file).decode("utf-8", "replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not all(isinstance(entry.get(s), dict) for s in ("pretrain", "transfer")):
                raise ValueError("it is no object with pretrain and transfer")
        except ValueError as error:
            raise UserError(
                f"line {number} of {file} is no record ({error}): restore it, or delete the line"
            ) from error
        found.append(entry)
    return found


def _value(file: Path, where: str):
    """A shared value, which its name is the digest of."""
    try:
        value = json.loads(files.read(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{where} needs {file}, which cannot be read ({error}): restore it") from error
    if record.digest(value) != file.stem:
        raise UserError(f"{file} has changed since it was written (its name is another digest): restore it")
    return value
