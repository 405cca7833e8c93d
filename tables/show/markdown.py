"""A grid and its prose in GitHub's Markdown."""

import re
from collections.abc import Sequence
from itertools import groupby

from tables.paper import Table
from tables.show.layout import Line, Number, has_verdicts, trials


def block(name: str, title: str, body: list[str], items: list[tuple[str, str]]) -> str:
    """A title, what stands under it, and its prose as a list."""
    points = [f"- {inline(text if mark in ('', '•') else f'{mark} {text}')}" for mark, text in items]
    return "\n".join([f"### {inline(title)}", "", *body, *[""] * bool(body), *points])


def inline(text: str) -> str:
    """Text whose `^x` is raised and in which nothing is taken for a table's border."""
    return re.sub(r"\^(\w+|†)", r"<sup>\1</sup>", text.replace("|", "\\|"))


def grid(tables: Sequence[Table], lines: list[Line], bold: bool = True) -> list[str]:
    """Header, alignment and lines; tables side by side share the rows, their titles stand before the headings."""
    windows = any(line.window for line in lines)
    ran = any(line.ours for line in lines)
    verdicts = has_verdicts(lines)
    header, align = ["pre-train"] + ["window"] * windows, ["---"] * (1 + windows)
    for table in tables:
        before = f"{table.short}: " if len(tables) > 1 else ""
        header += [before + inline(table.heading(metric)) for metric in table.metrics]
        header += [f"{before}trials"] * ran + [f"{before}verdict"] * verdicts
        header += map(inline, table.further)
        align += ["---:"] * len(table.metrics) + ["---:"] * ran + ["---"] * (verdicts + len(table.further))
    rows = [header, align]
    for group, of_group in groupby(lines, key=lambda line: line.group):
        rows += [[f"*{inline(group)}*"] + [""] * (len(header) - 1)] if group else []
        for line in of_group:
            label = f"*{line.label}*" if line.ours and tables[0].reports else inline(line.label)
            row = [label] + [line.window] * windows
            for side in line.sides:
                row += [_number(number, bold) for number in side.numbers]
                row += [trials(side)] * ran + [side.verdict] * verdicts + [*side.further]
            rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _number(number: Number, bold: bool) -> str:
    value = f"**{number.value}**" if bold and number.best else number.value
    delta = f"({number.delta})" if number.delta else ""
    return " ".join(part for part in (value, number.spread, delta) if part)
