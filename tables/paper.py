"""The paper's tables as data: `reported/<table>.toml`, with where each number comes from."""

from dataclasses import dataclass, field
from pathlib import Path

from resim_bench.experiments import Experiment, reported_tables

RECORDS = Path(__file__).parent / "records"  # the committed evidence


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as printed: what it is called, what experiment stands behind it, its numbers in per cent."""

    label: str
    pretrain: str
    transfer: str
    window: str = ""
    group: str = ""
    reported: dict[str, float] = field(default_factory=dict)
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def experiment(self) -> Experiment:
        """The pair of ids that this row names."""
        return Experiment(self.pretrain, self.transfer)

    @property
    def name(self) -> str:
        """What tells the row from the table's others, in words."""
        window = f" {self.window}" if self.window not in ("", "N/A") else ""
        return self.label + window + (f" ({self.group})" if self.group else "")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in the paper's row and column order.

    `notes` are footnotes by name: a row names those that are about it, one that no row names is about the whole
    table. `run` are the commands that fill the table where they cannot be told from its ids; `closing` is a last
    sentence on what the table shows.
    """

    id: str
    order: int
    title: str
    source: str
    metrics: list[str]
    rows: tuple[Row, ...]
    notes: dict[str, str] = field(default_factory=dict)
    run: tuple[str, ...] = ()
    closing: str = ""

    @property
    def reports(self) -> bool:
        """Whether the paper has a number for any row; tables of our own have none."""
        return any(row.reported for row in self.rows)


def load_tables() -> dict[str, Table]:
    """All tables by id, in order."""
    return {
        name: Table(id=name, **data | {"rows": tuple(Row(**row) for row in data["rows"])})
        for name, data in reported_tables().items()
    }
