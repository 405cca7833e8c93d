"""The frame as text for a terminal of 100 columns."""

import itertools
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from resim_bench import record
from resim_bench.errors import UserError
from tables.collect import collect
from tables.compare import ABOVE, BELOW, BOUND, COMPARED, DEVIATES, NO_VERDICT
from tables.paper import Table, load_tables

WIDTH = 100
DEVIATIONS_NAMED = 4
LEGEND = (
    "In per cent; diff = ours − paper. The verdict is that of AP: `match` when the difference lies within "
    f"±{BOUND['AP']} with 95 % confidence, `below` or `above` when outside, else `inconclusive`."
)


def report(record_roots: Iterable[Path], only: Sequence[str] | None = None) -> str:
    """The tables as text, from all records below `record_roots` (the first root that has a trial is believed).

    `only` names tables; without it, the paper's are shown, and our own where something has run.

    Raises:
        UserError: no such table, or a broken record.
    """
    return render(collect(record.read_all(*record_roots)), only)


def render(frame: pd.DataFrame, only: Sequence[str] | None = None) -> str:
    """The tables of a frame made by `tables.collect`, under one another; `only` as in `report`."""
    tables = load_tables()
    unknown = [name for name in only or () if name not in tables]
    if unknown:
        raise UserError(f"there is no table '{unknown[0]}': choose from {', '.join(tables)}")
    ran = set(frame.loc[frame.trials > 0, "table"])
    shown = [tables[name] for name in tables if (name in only if only else tables[name].reports or name in ran)]
    parts = [_render_table(table, frame[frame.table == table.id]) for table in shown]
    if frame[frame.table.isin([table.id for table in shown])].verdict.isin(COMPARED).any():
        last = max(i for i, table in enumerate(shown) if table.reports)
        parts.insert(last + 1, _wrap(LEGEND))  # under the paper's tables: ours have a closing sentence
    return "\n\n\n".join(parts) + "\n"


def _render_table(table: Table, frame: pd.DataFrame) -> str:
    lines = [table.title, "═" * min(len(table.title), WIDTH), *_grid(table, frame), ""]
    lines += [_wrap(_status(table, frame)), *_remarks(table, frame), *_notes(table)]
    if table.closing:
        lines.append(_wrap(table.closing))
    return "\n".join(lines)


# ---------------------------------------------------------------- the grid


class Column(NamedTuple):
    """A column's title, its cell for every row, the metric it stands under, the gap before it, how it aligns."""

    title: str
    cells: list[str]
    metric: str = ""
    gap: int = 2
    text: bool = False

    @property
    def width(self) -> int:
        """Of the widest cell, in characters."""
        return max(map(len, [self.title, *self.cells]))


def _grid(table: Table, frame: pd.DataFrame) -> list[str]:
    """Header and rows; a group's name stands on a line of its own above its rows."""
    columns = _columns(table, frame)
    rows = [_line(columns, [column.cells[i] for column in columns]) for i in range(len(table.rows))]
    header = [_line(columns, [column.title for column in columns])]
    if table.reports:
        header.insert(0, _spanning_header(columns))
    lines = [*header, "─" * max(map(len, header + rows))]
    group = ""
    for row, line in zip(table.rows, rows, strict=True):
        if row.group != group:
            group = row.group
            lines.append(group)
        lines.append(line)
    return lines


def _columns(table: Table, frame: pd.DataFrame) -> list[Column]:
    marks = _marks(table)
    indent = "  " if any(row.group for row in table.rows) else ""
    labels = [indent + row.label + "".join(f" [{marks[note]}]" for note in row.notes) for row in table.rows]
    columns = [Column(f"{indent}pre-train", labels, gap=0, text=True)]
    if any(row.window for row in table.rows):
        columns.append(Column("window", [row.window for row in table.rows], text=True))
    for metric in table.metrics:
        values = frame[frame.metric == metric]
        if table.reports:
            columns += [
                Column("paper", _numbers(values.reported), metric, gap=3),
                Column("ours", _numbers(values.ours), metric, gap=1),
                Column("diff", _numbers(values.difference, signed=True), metric, gap=1),
            ]
        else:
            columns.append(Column(metric, _numbers(values.ours), gap=3))
    headline = _headline(table, frame)
    columns.append(Column("trials", [str(trials) for trials in headline.trials]))
    if table.reports or (headline.verdict != NO_VERDICT).any():
        columns.append(Column("verdict", list(headline.verdict), text=True))
    return columns


def _line(columns: list[Column], texts: list[str]) -> str:
    line = ""
    for column, text in zip(columns, texts, strict=True):
        line += " " * column.gap + (text.ljust if column.text else text.rjust)(column.width)
    return line.rstrip()


def _spanning_header(columns: list[Column]) -> str:
    """The metrics' names, each centred over its columns."""
    line = ""
    for metric, group in itertools.groupby(columns, key=lambda column: column.metric):
        over = list(group)
        span = sum(column.gap + column.width for column in over)
        line += " " * over[0].gap + metric.center(span - over[0].gap)
    return line.rstrip()


def _numbers(values: pd.Series, signed: bool = False) -> list[str]:
    form = "{:+.1f}" if signed else "{:.1f}"
    rounded = [round(value, 1) + 0.0 for value in values]  # + 0.0: no negative zero
    return ["–" if pd.isna(value) else form.format(value).replace("-", "−") for value in rounded]


def _headline(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of the first metric, one a row: its verdict is the row's."""
    return frame[frame.metric == table.metrics[0]]


# ---------------------------------------------------------------- what stands below it


def _marks(table: Table) -> dict[str, int]:
    """Footnote numbers, in the order in which the rows name the notes."""
    named = dict.fromkeys(note for row in table.rows for note in row.notes)
    return {note: number for number, note in enumerate(named, 1)}


def _notes(table: Table) -> list[str]:
    marks = _marks(table)
    general = [_item("•", text) for note, text in table.notes.items() if note not in marks]
    return [_item(f"[{number}]", table.notes[note]) for note, number in marks.items()] + general


def _remarks(table: Table, frame: pd.DataFrame) -> list[str]:
    """What the verdict of a row leaves out: how it deviates, and another metric that is below or above."""
    verdicts = list(_headline(table, frame).verdict)
    deviating = defaultdict(list)  # rows of one short run mostly deviate alike: they share a line
    for row, line in zip(table.rows, _headline(table, frame).itertuples(), strict=True):
        if line.verdict == DEVIATES:
            deviating[line.deviations].append(row.name)
    lines = []
    for deviations, names in deviating.items():
        more = len(deviations) - DEVIATIONS_NAMED
        rest = f"; and {more} more" if more > 0 else ""
        verb = "deviates" if len(names) == 1 else "deviate"
        lines.append(_item("•", f"{', '.join(names)} {verb}: {'; '.join(deviations[:DEVIATIONS_NAMED])}{rest}."))
    for line in frame.itertuples():
        if line.verdict in (BELOW, ABOVE) and line.verdict != verdicts[line.row]:
            lines.append(_item("•", f"{table.rows[line.row].name}: {line.metric} is {line.verdict}."))
    return lines


def _status(table: Table, frame: pd.DataFrame) -> str:
    """One sentence: how much of the table stands on runs, and the commands that fill the rest."""
    headline = _headline(table, frame)
    counts = Counter(headline.verdict)
    missing = headline[headline.trials == 0]
    if table.reports:
        sentence = f"{sum(counts[verdict] for verdict in COMPARED)} of {len(headline)} rows verified"
        found = [f"{counts[verdict]} {verdict}" for verdict in COMPARED if counts[verdict]]
    else:
        sentence = f"{len(headline) - len(missing)} of {len(headline)} rows have run"
        found = []
    if found:
        sentence += f" ({', '.join(found)})"
    if counts[DEVIATES]:
        verb = "deviates" if counts[DEVIATES] == 1 else "deviate"
        sentence += f"; {counts[DEVIATES]} {verb} from the protocol"
        sentence += " and is not compared with the paper" if table.reports and counts[DEVIATES] == 1 else ""
        sentence += " and are not compared with the paper" if table.reports and counts[DEVIATES] > 1 else ""
    if len(missing):
        sentence += f"; run {_commands(table, missing)}"
    return sentence + "."


def _commands(table: Table, missing: pd.DataFrame) -> str:
    if table.run:
        steps = list(table.run)
    else:
        families = dict.fromkeys(name.split("-")[0] for name in missing.pretrain)
        steps = [f"make pretrain-{name}" for name in families]
        steps += [f"make transfer-{name}" for name in dict.fromkeys(missing.transfer)]
    return " then ".join(f"`{step}`" for step in steps)


def _item(mark: str, text: str) -> str:
    return _wrap(f"{mark} {text}", " " * (len(mark) + 1))


def _wrap(text: str, indent: str = "") -> str:
    """Filled to the width; a command in backticks stays on one line."""
    whole = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\u00a0"), text)
    lines = textwrap.fill(whole, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return lines.replace("\u00a0", " ")
