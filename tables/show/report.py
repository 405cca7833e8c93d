"""The frame as text: which tables, side by side or under one another, in which format."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from resim_bench import evidence
from resim_bench.errors import UserError
from tables.collect import collect
from tables.compare import COMPARED
from tables.paper import Table, load_tables
from tables.show import latex, layout, markdown, prose, terminal

FORMATS = {"terminal": terminal, "markdown": markdown, "latex": latex}
FORMS = (*FORMATS, "csv")


def report(
    record_roots: Iterable[Path],
    only: Sequence[str] | None = None,
    form: str = "terminal",
    details: bool = False,
    bold: bool = False,
) -> str:
    """The tables as text, from all records below `record_roots` (the first root that has a trial is believed).

    Args:
        record_roots: folders of records.
        only: ids of tables; without it, the paper's are shown, and our own where something has run.
        form: of `FORMS`; `csv` is the tidy frame with all its digits.
        details: what stands behind each row, too: what ran, what deviates, what is missing, where numbers are from.
        bold: in a terminal, mark the best of each column.

    Raises:
        UserError: no such table or format, or a broken record.
    """
    return render(collect(evidence.read_all(*record_roots)), only, form, details, bold)


def render(
    frame: pd.DataFrame,
    only: Sequence[str] | None = None,
    form: str = "terminal",
    details: bool = False,
    bold: bool = False,
) -> str:
    """The tables of a frame made by `tables.collect`; the arguments are those of `report`."""
    shown = chosen(frame, only)
    frame = frame[frame.table.isin([table.id for table in shown])]
    if form == "csv":
        seeds = frame.by_seed.map(lambda values: "; ".join(f"{seed}: {value}" for seed, value in values.items()))
        held = frame.held.map(lambda images: "; ".join(map(str, images)))
        texts = {"deviations": frame.deviations.map("; ".join), "by_seed": seeds, "held": held}
        return (
            frame.assign(**texts)
            .drop(columns=["versus", "earlier", "costs", "details", "detections", "by_iou"])
            .to_csv(index=False)
        )
    if form not in FORMATS:
        raise UserError(f"there is no format '{form}': choose from {', '.join(FORMS)}")
    panels = _side_by_side(shown)
    last = max((i for i, tables in enumerate(panels) if tables[0].reports), default=-1)
    parts = []
    for i, tables in enumerate(panels):
        laid_out = panel(tables, frame, details)
        parts.append(typeset(laid_out.with_legend(frame) if i == last else laid_out, form, bold))
        if i == last and not only and form != "latex":
            said = prose.on_claims(frame, "reported", "ours")
            parts.append(FORMATS[form].block("claims", "What the summary says in words", [], said))
    return "\n\n\n".join(parts) + "\n"


class Panel(NamedTuple):
    """Tables that stand side by side, their lines, and what is said beneath: the same in every format."""

    tables: list[Table]
    lines: list[layout.Line]
    items: list[prose.Item]

    def with_legend(self, frame: pd.DataFrame) -> "Panel":
        """How they are read beneath them, where anything in the frame is compared with a paper."""
        compared = self.tables[0].reports and frame.verdict.isin(COMPARED).any()
        return self._replace(items=[*self.items, *[("", prose.legend(self.tables[0].paper))] * bool(compared)])


def panel(tables: list[Table], frame: pd.DataFrame, details: bool = False) -> Panel:
    """Lay out tables that stand side by side; no column is for an earlier edition of which nothing is known."""
    part = frame[frame.table.isin([table.id for table in tables])]
    known = {table for table, (mean, _) in zip(part.table, part.earlier, strict=True) if not math.isnan(mean)}
    tables = [table if table.id in known else dataclasses.replace(table, earlier="") for table in tables]
    return Panel(tables, layout.lines(tables, part), prose.beneath(tables, part, details))


def typeset(panel: Panel, form: str, bold: bool = False) -> str:
    """A panel in one of `FORMATS`."""
    tables, lines, items = panel
    style = FORMATS[form]
    return style.block(tables[0].id, _title(tables), style.grid(tables, lines, bold or form != "terminal"), items)


def _side_by_side(shown: list[Table]) -> list[list[Table]]:
    """Tables that stand alone, and those that stand beside another that is shown, too."""
    panels = {table.id: [table] for table in shown}
    for table in shown:
        if table.beside in panels:
            panels[table.beside] += panels.pop(table.id)
    return list(panels.values())


def _title(tables: list[Table]) -> str:
    first, *others = tables
    return " and ".join([first.title, *(table.short for table in others)])


def chosen(frame: pd.DataFrame, only: Sequence[str] | None) -> list[Table]:
    """The tables of these ids in their order; without any, the paper's, and our own where something has run.

    Raises:
        UserError: there is no such table.
    """
    tables = load_tables()
    unknown = [name for name in only or () if name not in tables]
    if unknown:
        raise UserError(f"there is no table '{unknown[0]}': choose from {', '.join(tables)}")
    # what an earlier table shows, too, does not make a later one worth showing
    ran = set(frame[frame.trials > 0].drop_duplicates(["pretrain", "transfer"]).table)
    return [tables[name] for name in tables if (name in only if only else tables[name].reports or name in ran)]
