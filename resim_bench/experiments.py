"""What can be run: recipes and protocols by id, and the pairs of them that the rows of the tables name.

An id is the file name of its config. The rows stand in `tables/papers/*/*.toml`; they are read here once, as
data, so that the rooms agree on the order of everything without importing each other.
"""

import ast
import difflib
import fnmatch
import functools
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from resim_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ROOT / "tables" / "papers"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ID = re.compile(rf"{NAME.pattern}(@[1-9][0-9]*ep)?")  # of a record: a config's name, or `kept_id`
RELEASED = Path(__file__).parent / "data" / "released.toml"


def require_clone(what: str) -> None:
    """Refuse what writes into the repository where there is none.

    Raises:
        UserError: the suite is installed without its repository.
    """
    if not (ROOT / ".git").exists():
        raise UserError(f"{what} writes into tables/records of a clone, and {ROOT} is none: clone the repository")


class Experiment(NamedTuple):
    """A backbone and what it is tested on: the pair that a row of a table names."""

    pretrain_id: str
    transfer_id: str


class Trial(NamedTuple):
    """An experiment with one seed, of pre-training and of transfer."""

    experiment: Experiment
    seed: int


def reported_tables(folder: Path = PAPERS) -> dict[str, dict]:
    """Every table of the papers in `folder` as its TOML says, by id (its file name), in the tables' own order."""
    return dict(_parse(Path(folder)))  # a copy of the cached list, so that no caller can change its order


@functools.cache
def _parse(folder: Path) -> list[tuple[str, dict]]:
    tables = []
    for paper in sorted(folder.iterdir()):
        for file in sorted(paper.rglob("*.toml")):
            if file.name not in ("paper.toml", "claims.toml"):
                tables.append((file.stem, tomllib.loads(file.read_text("utf-8")) | {"paper": paper.name}))
    return sorted(tables, key=lambda item: item[1]["order"])


def experiments() -> list[Experiment]:
    """Every experiment that some row names, once, in the order of the tables."""
    return list(dict.fromkeys(pair for id in reported_tables() for pair in of_table(id)))


def of_table(id: str) -> list[Experiment]:
    """The experiments of a table's rows, in its order; a row may have none."""
    return [Experiment(row["pretrain"], row["transfer"]) for row in reported_tables()[id]["rows"] if "pretrain" in row]


@functools.cache
def released() -> dict[str, dict[str, str]]:
    """The released weights that rows name, by their id `given-…`: `title`, `url` of their authors' page or file."""
    return tomllib.loads(RELEASED.read_text("utf-8"))


def paired_with(transfer_id: str) -> list[str]:
    """The pre-training ids that some row transfers by `transfer_id`, in table order; none is an empty list."""
    return [pair.pretrain_id for pair in experiments() if pair.transfer_id == transfer_id]


def released_for(transfer_id: str) -> list[str]:
    """The authors' own weights that may stand in for a row's pre-training under `transfer_id`, in table order."""
    rows = (row for table in reported_tables().values() for row in table["rows"] if row["transfer"] == transfer_id)
    return list(dict.fromkeys(row["released"] for row in rows if "released" in row))


def how_to_get(pretrain_ids: Iterable[str]) -> list[str]:
    """The commands, in backticks, that make or import these backbones."""
    ids = list(dict.fromkeys(pretrain_ids))
    theirs = [i for i in ids if i.startswith("given-")]
    middles = [i for i in ids if i != of_recipe(i)]
    whole = [i for i in ids if i not in theirs and i not in middles]
    steps = [f"`make pretrain-{family}`" for family in dict.fromkeys(i.split("-")[0] for i in whole)]
    steps += map(how_to_get_one, middles)
    if len(theirs) > 1:
        which = ", ".join(theirs) if len(theirs) < 3 else f"{len(theirs)} released backbones"
        return [*steps, f"`resim-bench import` ({which})"]
    return [*steps, *map(how_to_get_one, theirs)]


def how_to_get_one(pretrain_id: str, seed: int = 0) -> str:
    """The command, in backticks, that makes or imports this backbone."""
    if pretrain_id.startswith("given-"):
        return f"`resim-bench import FILE --as {pretrain_id}`"
    recipe, _, epoch = pretrain_id.partition("@")
    of_seed = f" --seed {seed}" if seed else ""
    keeping = f" --cfg-options keep=[{epoch.removesuffix('ep')}]" if epoch else ""
    return f"`resim-bench pretrain {recipe}{of_seed}{keeping}`"


def pretrain_ids() -> dict[str, Path]:
    """Every recipe's config by its id: those of the tables in their order, then the others by name."""
    return _configs("pretrain", [pair.pretrain_id for pair in experiments()])


def recipe_file(name: str) -> Path:
    """The config of a recipe: of an id, or a file of one's own, `PATH.py`.

    Raises:
        UserError: there is none, or a file that would pass for another recipe.
    """
    known = pretrain_ids()
    if not name.endswith(".py"):
        return known[select_one(name, known)]
    file = Path(name)
    if not file.is_file():
        raise UserError(f"there is no recipe {file}: give a file, or an id of `resim-bench list`")
    if not NAME.fullmatch(file.stem) or file.stem.startswith("given-"):
        raise UserError(f"{file} gives its runs no name that files and records can have: use letters, digits, - and _")
    if file.stem in known and file.resolve() != known[file.stem]:
        raise UserError(f"{file} has the name of a recipe of the suite: give it another")
    return file


def recipe_id(name: str) -> str:
    """What a recipe's runs and records are called: the name of its file."""
    return recipe_file(name).stem


def kept_id(pretrain_id: str, epoch: int) -> str:
    """The id of a backbone that a pre-training left on its way, after `epoch`; no row has one."""
    return f"{pretrain_id}@{epoch}ep"


def of_recipe(pretrain_id: str) -> str:
    """The id of the recipe that an id, perhaps of a backbone on the way, is of."""
    return pretrain_id.partition("@")[0]


def transfer_ids() -> dict[str, Path]:
    """Every protocol's config by its id: those of the tables in their order, then the others by name."""
    return _configs("transfer", [pair.transfer_id for pair in experiments()])


def probe_ids() -> dict[str, Path]:
    """Every linear probe's config by its id."""
    return _files("pretrain/probes")


def readings_ids() -> dict[str, Path]:
    """Every config of the monitor's readings by its id."""
    return _files("pretrain/readings")


def command_of(transfer_id: str) -> str:
    """The command that makes the records of a transfer id: `transfer`, `probe` or `judge`."""
    return "probe" if transfer_id in probe_ids() else "judge" if transfer_id in readings_ids() else "transfer"


def _files(folder: str) -> dict[str, Path]:
    return {file.stem: file for file in sorted((ROOT / folder).glob("[!_]*.py"))}


def _configs(room: str, first: list[str]) -> dict[str, Path]:
    files = _files(f"{room}/configs")
    ordered = dict.fromkeys(name for name in first if name in files) | files
    return {name: files[name] for name in ordered}


def select(pattern: str, known: Iterable[str]) -> list[str]:
    """The ids among `known` that match a glob such as `in100*`, in the order of `known`.

    Recipes and protocols that no row names, such as a row's variants, are meant only where nothing else matches.

    Raises:
        UserError: none matches; the sentence names the closest ids and all known ones.
    """
    known = list(known)
    matching = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
    matching = [name for name in matching if name not in _without_row()] or matching
    if not matching:
        close = difflib.get_close_matches(pattern, known)
        hint = f"did you mean {' or '.join(close)}; " if close else ""
        raise UserError(f"no id matches '{pattern}': {hint}known are {', '.join(known) or 'none'}")
    return matching


def _without_row() -> set[str]:
    named = {name for pair in experiments() for name in pair}
    return {*pretrain_ids(), *transfer_ids()} - named


def select_one(pattern: str, known: Iterable[str]) -> str:
    """The one id among `known` that matches.

    Raises:
        UserError: none matches, or several do.
    """
    chosen, *others = select(pattern, known)
    if others:
        raise UserError(f"'{pattern}' matches {len(others) + 1} ids, {', '.join([chosen, *others])}: give one of them")
    return chosen


def describe(config: Path) -> str:
    """The first line of a config's docstring, read without running the config; empty when it has none."""
    docstring = ast.get_docstring(ast.parse(Path(config).read_text("utf-8")))
    return docstring.splitlines()[0] if docstring else ""
