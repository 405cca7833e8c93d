"""A grid and its prose for a terminal of 100 columns."""

import re
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from tables.paper import Table
from tables.show.layout import Line, Number, counted, has_verdicts, plain, trials

WIDTH = 100
BOLD = re.compile("\033\\[[01]m")


class Spans(NamedTuple):
    """A label, and a text for each table, written over its columns."""

    label: str
    texts: list[str]


class Column(NamedTuple):
    """A column's title, what stands over it (outermost first), the gap before it, and how it aligns."""

    title: str
    over: tuple[str, ...] = ()
    gap: int = 2
    left: bool = False


GridRow = list[str] | str | Spans  # cells; a line as it is


def block(name: str, title: str, body: list[str], items: list[tuple[str, str]]) -> str:
    """A title, what stands under it, and its prose: paragraphs hanging from their marks."""
    head = [plain(title), "═" * min(len(plain(title)), WIDTH), *body]
    return "\n".join([*head, *[""] * bool(body and items), *(item(*one) for one in items)])


def item(mark: str, text: str) -> str:
    """A paragraph, hanging from its mark; filled to the width, a command in backticks on one line."""
    text = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\u00a0"), plain(text))
    filled = textwrap.fill(
        f"{mark} {text}" if mark else text,
        WIDTH,
        subsequent_indent=" " * (len(mark) + 1) if mark else "",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return filled.replace("\u00a0", " ")


def grid(tables: Sequence[Table], lines: list[Line], bold: bool = False) -> list[str]:
    """Header and lines of tables side by side; where deltas do not fit beside the values they stand beneath."""
    if tables[0].reports:
        ways = [_beside(tables, lines, bold), _beneath(tables, lines, bold)]
    else:
        ways = [_plain(tables[0], lines, bold, gap, beneath) for gap, beneath in ((3, False), (1, False), (2, True))]
    for columns, rows in ways:
        typeset = columned(columns, rows)
        if max(map(_width, typeset)) <= WIDTH:
            break
    return typeset


def _plain(table: Table, lines: list[Line], bold: bool, gap: int, beneath: bool) -> tuple[list[Column], list[GridRow]]:
    """A table of our own: a line per row, a group's name on a line above its rows; `beneath`: spreads too."""
    indent = "  " if any(line.group for line in lines) else ""
    columns = [Column(f"{indent}pre-train", gap=0, left=True)]
    columns += [Column(plain(table.heading(metric)), gap=gap) for metric in table.metrics] + [Column("trials")]
    verdicts = has_verdicts(lines)
    columns += [Column("verdict", left=True)] * verdicts
    columns += [Column(plain(heading), left=True) for heading in table.further]
    rows: list[GridRow] = []
    for group, of_group in groupby(lines, key=lambda line: line.group):
        rows += [plain(group)] if group else []
        for line in of_group:
            (side,) = line.sides
            numbers = [f"{_value(number, bold)} {number.spread}".rstrip() for number in side.numbers]
            label, between = indent + plain(line.label), [trials(side), *[side.verdict] * verdicts]
            if not beneath:
                rows.append([label, *numbers, *between, *side.further])
                continue
            (values, spreads), (further, intervals) = _parted(numbers), _parted(side.further)
            rows.append([label, *values, *between, *further])
            if any((*spreads, *intervals)):
                rows.append(["", *spreads, *[""] * len(between), *intervals])
    return columns, rows


def _parted(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before the first space of each, and what behind it: values, and their spreads or intervals."""
    parts = [text.partition(" ") for text in texts]
    return [value for value, *_ in parts], [behind for *_, behind in parts]


def _beside(tables: Sequence[Table], lines: list[Line], bold: bool) -> tuple[list[Column], list[GridRow]]:
    """`57.1 ± 0.2 (+3.6)` in one column."""
    ran = any(line.ours for line in lines)
    windows = any(line.window for line in lines)
    columns = [Column("pre-train", gap=0, left=True)] + [Column("window", left=True)] * windows
    for table in tables:
        over = (table.short,) if len(tables) > 1 else ()
        columns += [Column(plain(table.heading(metric)), over, 3, left=True) for metric in table.metrics]
        columns += [Column("trials", over)] * ran + [Column("verdict", over, left=True)]
        columns += [Column(heading, over) for heading in table.further]
    numbers = [number for line in lines for side in line.sides for number in side.numbers]
    spread = max(len(number.spread) for number in numbers)
    rows: list[GridRow] = []
    for line in lines:
        row = ["  " * line.ours + plain(line.label)] + [line.window] * windows
        for side in line.sides:
            for number in side.numbers:
                delta = f"({number.delta})" if number.delta else ""
                parts = [_value(number, bold, 4), number.spread.ljust(spread), delta]
                row.append(" ".join(part for part in parts if part).rstrip())
            row += [trials(side)] * ran + [side.verdict, *side.further]
        rows.append(row)
    return columns, rows


def _beneath(tables: Sequence[Table], lines: list[Line], bold: bool) -> tuple[list[Column], list[GridRow]]:
    """Values in narrow columns; spread, deltas and verdicts of ours in lines of their own under them."""
    columns = [Column("pre-train", gap=0, left=True)]
    for table in tables:
        before = ""
        for metric in table.metrics:
            name, _, raised = table.heading(metric).partition("^")
            gap = 3 if metric == table.metrics[0] else 1 if raised == before else 2
            columns.append(Column(name, (table.short, raised), gap))
            before = raised
    columns.append(Column("verdict", left=True))
    columns += [Column(heading) for table in tables for heading in table.further]
    deltas = f"  − {tables[0].delta_to}"
    rows: list[GridRow] = []
    for line in lines:
        numbers = [number for side in line.sides for number in side.numbers]
        label, verdict = ("  ours", "") if line.ours else (plain(line.label), line.sides[0].verdict)
        further = [cell for side in line.sides for cell in side.further]
        blank = ["", *[""] * len(further)]
        rows.append([label, *(_value(number, bold) for number in numbers), verdict, *further])
        if any(number.spread for number in numbers):
            rows.append(["  ±", *(number.spread.removeprefix("± ") for number in numbers), *blank])
        if any(number.delta for number in numbers):
            rows.append([deltas, *(number.delta for number in numbers), *blank])
        if line.ours:
            texts = [
                side.verdict + (f", {counted(side.trials, 'trial')}" if side.trials else "") for side in line.sides
            ]
            rows.append(Spans("  verdict", texts))
    return columns, rows


def _value(number: Number, bold: bool, width: int = 0) -> str:
    value = number.value.rjust(width)
    return f"\033[1m{value}\033[0m" if bold and number.best else value


def _width(text: str) -> int:
    return len(BOLD.sub("", text))


def columned(columns: list[Column], rows: list[GridRow]) -> list[str]:
    """Headers, a rule and the rows, every cell in its column."""
    cells = [row for row in rows if isinstance(row, list)]
    widths = [
        max(_width(cell) for cell in (column.title, *of_column))
        for column, *of_column in zip(columns, *cells, strict=True)
    ]
    over = [_over(columns, widths, level) for level in range(max(len(column.over) for column in columns))]
    header = [line for line in over if line] + [_line(columns, widths, [column.title for column in columns])]
    body = [row if isinstance(row, str) else _line(columns, widths, row) for row in rows]
    return [*header, "─" * max(map(_width, [*header, *body])), *body]


def _line(columns: list[Column], widths: list[int], texts: list[str] | Spans) -> str:
    if isinstance(texts, Spans):
        return _spans(columns, widths, texts)
    line = ""
    for column, width, text in zip(columns, widths, texts, strict=True):
        pad = " " * (width - _width(text))
        line += " " * column.gap + (text + pad if column.left else pad + text)
    return line.rstrip()


def _over(columns: list[Column], widths: list[int], level: int) -> str:
    """What stands over the columns at one level, each centred between rules; empty when nothing does."""
    line = ""
    numbered = list(zip(columns, widths, strict=True))
    for titles, group in groupby(numbered, key=lambda pair: pair[0].over[: level + 1]):
        spanned = list(group)
        gap = spanned[0][0].gap
        width = sum(column.gap + width for column, width in spanned) - gap
        title = titles[level] if len(titles) > level else ""
        line += " " * gap + (f" {title} ".center(width, "╌") if title else " " * width)
    return line.rstrip()


def _spans(columns: list[Column], widths: list[int], row: Spans) -> str:
    line, texts = row.label, iter(row.texts)
    start = 0
    before: tuple[str, ...] = ()
    for column, width in zip(columns, widths, strict=True):
        start += column.gap
        if column.over[:1] not in ((), before):
            line = line.ljust(start) + next(texts)
        before = column.over[:1]
        start += width
    return line
