"""Which cells a table has and what stands in them, for every format; how a format draws them is its own matter."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from tables.compare import DEVIATES, NO_VERDICT, SEVERITY
from tables.paper import Table
from tables.statistics import Paired

ABSENT = "–"
RAISED = str.maketrans("Tbmk", "ᵀᵇᵐᵏ")
READ = ["table", "row", "group", "metric", "reported", "reported_delta", "ours", "std", "delta", "trials", "verdict"]
READ += ["versus", "earlier"]


class Number(NamedTuple):
    """One number as printed: value, `± spread`, difference to the row that is subtracted; the best of its column?"""

    value: str
    spread: str = ""
    delta: str = ""
    best: bool = False


class Side(NamedTuple):
    """What one table says in a line; the paper's has no trials. `further` are the cells of `Table.further`."""

    numbers: list[Number]
    trials: int | None = None
    verdict: str = ""
    further: tuple[str, ...] = ()


class Line(NamedTuple):
    """A line of a grid: the paper's of a row, or ours beneath it; a side for each table that stands in the grid."""

    label: str
    window: str
    group: str
    ours: bool
    sides: list[Side]


def lines(tables: Sequence[Table], frame: pd.DataFrame) -> list[Line]:
    """The lines of tables that stand side by side, in the paper's order.

    A row has the paper's line and, where something has run, ours under it; of a table of our own there is ours alone.
    """
    marks = footnotes(tables)
    frame = frame[READ]  # few: a row is cut out column by column
    parts = [frame[frame.table == table.id] for table in tables]
    verdicts = [headline(part) for part in parts]
    best = [(_best(part, "reported"), _best(part[part.verdict != DEVIATES], "ours")) for part in parts]
    by_row = [dict(iter(part.groupby("row"))) for part in parts]
    found = []
    for number, row in enumerate(tables[0].rows):
        texts = dict.fromkeys(table.notes[note] for table in tables for note in table.rows[number].notes)
        label = row.label + "".join(f" [{marks[text]}]" for text in texts)
        rows = [of_row[number] for of_row in by_row]
        heads = [verdict.loc[number] for verdict in verdicts]
        ran = any(head.trials for head in heads)
        if tables[0].reports:
            sides = [
                Side(_numbers(one, "reported", bests), None, "" if ran else head.verdict, _elsewhere(table, number))
                for table, one, (bests, _), head in zip(tables, rows, best, heads, strict=True)
            ]
            found.append(Line(label, row.window, row.group, False, sides))
        if ran or not tables[0].reports:
            sides = [
                Side(_numbers(one, "ours", bests), head.trials, head.verdict, _versus(table, head))
                for table, one, (_, bests), head in zip(tables, rows, best, heads, strict=True)
            ]
            found.append(Line("ours" if tables[0].reports else label, "", row.group, True, sides))
    return found


def headline(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per row of one table: that of its AP; of box and mask AP the one with the graver verdict.

    Of a table without AP, such as one of readings, it is that of the first metric.
    """
    of_ap = frame[frame.metric.map(is_ap)]
    of_ap = of_ap if len(of_ap) else frame[frame.metric == frame.metric.iloc[0]]
    gravity = of_ap.verdict.map({verdict: rank for rank, verdict in enumerate(SEVERITY)})
    graver = of_ap.assign(gravity=gravity).sort_values("gravity", kind="stable").drop_duplicates(["table", "row"])
    return graver.sort_index().set_index("row", drop=False)


def first_metric(table: Table) -> str:
    """What a table shows of its rows where it shows one number: its AP, or the first metric of one without."""
    return next(filter(is_ap, table.metrics), table.metrics[0])


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def within_group(line) -> str:
    """The name of a frame's row where that of its group stands above it."""
    return line.name.removesuffix(f" ({line.group})")


def plain(text: str) -> str:
    """Text whose raised letters (`ReSim-FPN^T`, `AP^bb`) are raised by Unicode, for where there is no markup."""
    return re.sub(r"\^(\w+|†)", lambda raised: raised[1].translate(RAISED), text)


def is_ap(metric: str) -> bool:
    """Whether a metric is AP over all thresholds, of boxes or masks."""
    return metric in ("AP", "box_AP", "mask_AP")


def footnotes(tables: Sequence[Table]) -> dict[str, int]:
    """The texts of the notes that rows name, each with its number."""
    rows = zip(*(table.rows for table in tables), strict=True)
    named = [table.notes[note] for side in rows for table, row in zip(tables, side, strict=True) for note in row.notes]
    return {text: number for number, text in enumerate(dict.fromkeys(named), 1)}


def one_decimal(value: float, signed: bool = False) -> str:
    """A number as the paper prints it; NaN is a dash."""
    if math.isnan(value):
        return ABSENT
    return f"{round(value, 1) + 0.0:{'+' if signed else ''}.1f}".replace("-", "−")  # + 0.0: no negative zero


def _numbers(frame: pd.DataFrame, side: str, best: set) -> list[Number]:
    delta = "reported_delta" if side == "reported" else "delta"
    return [
        Number(
            one_decimal(value),
            "" if side == "reported" else _spread(std),
            "" if math.isnan(difference) else one_decimal(difference, signed=True),
            (number, metric) in best,
        )
        for number, metric, value, std, difference in zip(
            frame.row, frame.metric, frame[side], frame["std"], frame[delta], strict=True
        )
    ]


def _spread(std: float) -> str:
    return "" if math.isnan(std) else f"± {std:.1f}"


def difference(test: Paired) -> str:
    """A mean difference with its 95 % interval, like `+1.2 (−0.3 … +2.7)`."""
    low, mean, high = (one_decimal(value, signed=True) for value in (test.low, test.mean, test.high))
    return f"{mean} ({low} … {high})"


def _versus(table: Table, head) -> tuple[str, ...]:
    """The difference to each row that the table compares its own with, and the AP of an earlier edition; else empty."""
    cells = [difference(head.versus[label]) if label in head.versus else "" for label in table.differences]
    if table.earlier:
        mean, std = head.earlier
        cells.append("" if math.isnan(mean) else f"{one_decimal(mean)} {_spread(std)}".rstrip())
    return (*cells, *[""] * (len(table.further) - len(cells)))


def _elsewhere(table: Table, number: int) -> tuple[str, ...]:
    """The AP that others published of a row's method under the table's one protocol; a dash where nobody did."""
    value = table.rows[number].elsewhere.get("AP", math.nan)
    return (one_decimal(value),) if table.further else ()


def _best(frame: pd.DataFrame, side: str) -> set[tuple[int, str]]:
    """(row, metric) of the highest printed value of every column and group: all in a tie, none where all are equal."""
    printed = frame[side].round(1)
    columns = printed.groupby([frame.group, frame.metric])
    highest = frame[(printed == columns.transform("max")) & (printed > columns.transform("min"))]
    return set(zip(highest.row, highest.metric, strict=True))


def trials(side: Side) -> str:
    """How many trials a side has, in figures; nothing in the paper's line."""
    return "" if side.trials is None else str(side.trials)


def has_verdicts(lines: list[Line]) -> bool:
    """Whether any line has a verdict to show."""
    return any(side.verdict not in ("", NO_VERDICT) for line in lines for side in line.sides)
