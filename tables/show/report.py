"""The frame as text: which tables, side by side or under one another, in which format."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

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
    style = FORMATS[form]
    known = {table for table, (mean, _) in zip(frame.table, frame.earlier, strict=True) if not math.isnan(mean)}
    shown = [table if table.id in known else dataclasses.replace(table, earlier="") for table in shown]
    panels = _side_by_side(shown)
    last = max((i for i, tables in enumerate(panels) if tables[0].reports), default=-1)
    parts = []
    for i, tables in enumerate(panels):
        part = frame[frame.table.isin([table.id for table in tables])]
        grid = style.grid(tables, layout.lines(tables, part), bold or form != "terminal")
        items = prose.beneath(tables, part, details)
        if i == last and frame.verdict.isin(COMPARED).any():
            items.append(("", prose.legend(tables[0].paper)))
        parts.append(style.block(tables[0].id, _title(tables), grid, items))
        if i == last and not only and form != "latex":
            parts.append(
                style.block("claims", "What the summary says in words", [], prose.on_claims(frame, "reported", "ours"))
            )
    return "\n\n\n".join(parts) + "\n"


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
