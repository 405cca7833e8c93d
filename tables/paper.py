"""Papers as data, a folder each: their tables, claims and noise; and the protocols of today."""

import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from resim_bench.experiments import reported_tables

ROOM = Path(__file__).parent
RECORDS = ROOM / "records"  # the committed evidence


class Noise(NamedTuple):
    """Of a metric, in per cent: the spread of one transfer, and the largest difference that counts as none."""

    std: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as printed: what it is called, what experiment stands behind it, its numbers in per cent.

    `released` are the authors' own weights for a row that we train ourselves; a row without `pretrain` says in
    `unavailable` why nothing can stand there. `copied_from` says where the paper took the numbers, `recipe` whether
    what stands behind them is `published`, `inferred` or `ours`, and `why`. `paper_trials` is how many trials the
    reported number is a mean of, where that is known. In a label, `^` raises what follows it.

    `transfer` is the protocol behind the reported numbers, as far as is known: `protocol` says whether it is the `same`
    as the table's one, an `other` or `unknown`, `evidence` whether that was `read`, is `second-hand` or `inferred`, and
    `witness` names the source (docs/sources.md). `elsewhere` are numbers that others published of the method under the
    table's one protocol, `elsewhere_from` their source.
    """

    label: str
    transfer: str
    pretrain: str = ""
    released: str = ""
    unavailable: str = ""
    window: str = ""
    group: str = ""
    reported: dict[str, float] = field(default_factory=dict)
    paper_trials: int = 1
    source: str = ""
    copied_from: str = ""
    recipe: str = ""
    why: str = ""
    notes: tuple[str, ...] = ()
    protocol: str = ""
    evidence: str = ""
    witness: str = ""
    elsewhere: dict[str, float] = field(default_factory=dict)
    elsewhere_from: str = ""

    @property
    def name(self) -> str:
        """What tells the row from the table's others, in words."""
        window = f" {self.window}" if self.window not in ("", "N/A") else ""
        return self.label + window + (f" ({self.group})" if self.group else "")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in the paper's row and column order.

    `headings` are the metrics' names as printed. From the rows below the one that `delta_to` names, the paper
    subtracts that one; gains of ReSim over `gain_over` are judged. A table `beside` another has the same rows and
    stands at its right, both under their `short` titles. `notes` are footnotes by name: a row names those that are
    about it, one that no row names is about the whole table. `run` are the commands that fill the table where they
    cannot be told from its ids; `closing` is a last sentence on what the table shows. In a table of our own each row is
    compared, seed by seed, with those that `differences` names, its group's first; its AP in the table of an `earlier`
    edition stands behind. With `check` off, the numbers scatter more than the stated priors, and new ones are not held
    against earlier ones. `one` is the protocol that most rows share, whose numbers from elsewhere have a column of
    their own. `data` is what a transfer is tested on.
    """

    id: str
    paper: str
    data: str
    order: int
    title: str
    source: str
    metrics: list[str]
    rows: tuple[Row, ...]
    headings: tuple[str, ...] = ()
    short: str = ""
    delta_to: str = ""
    gain_over: str = ""
    beside: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    run: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    earlier: str = ""
    closing: str = ""
    check: bool = True
    one: str = ""

    @property
    def further(self) -> list[str]:
        """Headings of the columns behind the verdict: differences to other rows, AP before, numbers from elsewhere."""
        differences = [f"AP − {label}" for label in self.differences]
        earlier = ["AP before"] if self.earlier else []
        elsewhere = any(row.elsewhere for row in self.rows)
        return differences + earlier + [self.one] * elsewhere

    @property
    def reports(self) -> bool:
        """Whether the paper has a number for any row; tables of our own have none."""
        return any(row.reported for row in self.rows)

    def heading(self, metric: str) -> str:
        """A metric's name as the table prints it."""
        return dict(zip(self.metrics, self.headings or self.metrics, strict=True))[metric]

    def noise(self, metric: str) -> Noise:
        """That of a metric on the table's data; none of what the paper does not measure, such as readings."""
        found = load_paper(self.paper).noise.get(self.data)
        return Noise(found["std"][metric], found["bound"][metric]) if found else Noise(0.0, 0.0)

    def number(self, label: str, group: str | None = None) -> int | None:
        """Where the row of that label stands, that of the group before others; None without one."""
        numbers = [number for number, row in enumerate(self.rows) if row.label == label]
        return min(numbers, key=lambda number: self.rows[number].group != group, default=None)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What is reproduced; `noise` is by data set, then `std` and `bound`, then metric."""

    title: str
    method: str
    baseline: str
    noise: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence of a paper as comparisons between rows; `claims.toml` says what the fields mean."""

    text: str
    source: str
    tables: list[str]
    above: str
    below: str
    gain: str = ""


def load_tables() -> dict[str, Table]:
    """All tables by id, in order."""
    return {
        name: Table(id=name, **data | {"rows": tuple(Row(**row) for row in data["rows"])})
        for name, data in reported_tables().items()
    }


@functools.cache
def load_paper(name: str) -> Paper:
    """The paper of a folder."""
    return Paper(**_read(f"papers/{name}/paper.toml"))


@functools.cache
def load_statements() -> tuple[Statement, ...]:
    """What the papers say in words."""
    files = sorted((ROOM / "papers").glob("*/claims.toml"))
    return tuple(Statement(**claim) for file in files for claim in _read(str(file.relative_to(ROOM)))["claims"])


@functools.cache
def load_protocols() -> dict[str, dict[str, str]]:
    """Digests of today's protocols by id, of each side: `pretrain` and `transfer`."""
    return _read("protocols.toml")


def _read(name: str) -> dict:
    return tomllib.loads((ROOM / name).read_text("utf-8"))
