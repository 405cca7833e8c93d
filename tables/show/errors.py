"""`tables --errors`: AP at one IoU, and how much of it each kind of error costs."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from resim_bench.errors import UserError
from resim_bench.record import ERRORS
from tables.collect import KINDS
from tables.paper import Table, load_tables
from tables.show import layout, prose, terminal
from tables.show.figure import draw_bars
from tables.show.report import chosen
from tables.show.terminal import Column

COLUMNS = {
    "AP": Column("AP"),
    "classification": Column("class", ("wrong",)),
    "localisation": Column("place", ("wrong",)),
    "both": Column("both", ("wrong",)),
    "duplicate": Column("dupl."),
    "background": Column("backgr."),
    "missed": Column("missed"),
    "false_positives": Column("pos.", ("false",)),
    "false_negatives": Column("neg.", ("false",)),
}
LEGEND = (
    "AP at one IoU, by 101 points of recall, and what it would gain if all errors of one kind were mended and no "
    "others, in per cent: the mean ± the spread over pre-trainings or, of one, over its transfers. These costs do not "
    "add up (docs/errors.md)."
)


def errors(frame: pd.DataFrame, only: Sequence[str] | None = None) -> str:
    """What errors cost as text, a block per table: of these, or of each that has records of it.

    Args:
        frame: made by `tables.collect`.
        only: ids of tables.

    Raises:
        UserError: there is no such table.
    """
    lines = frame[frame.metric.isin(KINDS)]
    tables = chosen(frame, only) if only else with_costs(frame)
    blocks = [_block(table, lines[lines.table == table.id]) for table in tables]
    costed = lines[lines.costed > 0].table.isin([table.id for table in tables]).any()
    last = LEGEND if costed else f"N{nothing(tables)[1:]}."
    return "\n\n\n".join([*blocks, terminal.item("", last)]) + "\n"


def with_costs(frame: pd.DataFrame) -> list[Table]:
    """The tables with records that say what errors cost; what an earlier one shows, too, makes no later one of them."""
    first = set(frame[frame.costed > 0].drop_duplicates(["pretrain", "transfer"]).table)
    return [table for id, table in load_tables().items() if id in first]


def draw_errors(frame: pd.DataFrame, id: str, file: Path) -> None:
    """What errors cost in a table at its lowest IoU, a panel per group and kind of AP, as SVG or PNG.

    Raises:
        UserError: there is no such table, or no record of it says it.
    """
    (table,) = chosen(frame, [id])
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in frame[(frame.table == table.id) & (frame.costed > 0)].itertuples():
        iou = min(line.costs, key=float)
        of_row = [line.costs[iou][name] for name in ERRORS[1:]]
        panels.setdefault(heading(line, iou), {})[layout.plain(layout.within_group(line))] = of_row
    if not panels:
        raise UserError(f"no record of {table.id} says what errors cost: run a transfer of the table first")
    draw_bars(panels, [name.replace("_", "\n") for name in ERRORS[1:]], "AP that it costs, per cent", file)


def nothing(tables: Sequence[Table]) -> str:
    """What is said where no record of these says what errors cost."""
    of = f" of {', '.join(table.id for table in tables)}" if tables else ""
    return f"no record{of} says what errors cost: those of transfers from now on do"


def _block(table: Table, lines: pd.DataFrame) -> str:
    costed, without = lines[lines.costed > 0], lines[lines.costed < lines.trials]
    items = prose.deviating(costed.drop_duplicates("row"), lambda line: line.name)
    if len(without):
        names = "; ".join(
            f"{line.name}, {line.trials - line.costed} of {layout.counted(line.trials, 'trial')}"
            for line in without.itertuples()
        )
        items.append(("•", f"Left out, as their records do not say what errors cost: {names}."))
    return terminal.block(table.id, table.title, _grid(costed), items)


def _grid(lines: pd.DataFrame) -> list[str]:
    """A block of lines per group, kind of AP and IoU; the spread stands beneath the mean."""
    columns = [Column("  pre-train", gap=0, left=True), *COLUMNS.values(), Column("trials")]
    blocks: dict[str, list[terminal.GridRow]] = {}
    for line in lines.itertuples():
        for iou, costs in line.costs.items():
            means, spreads = zip(*(costs[name] for name in COLUMNS), strict=True)
            block = blocks.setdefault(heading(line, iou), [])
            block.append(
                ["  " + layout.plain(layout.within_group(line)), *map(layout.one_decimal, means), str(line.costed)]
            )
            if not math.isnan(spreads[0]):
                block.append(["    ±", *map(layout.one_decimal, spreads), ""])
    rows = [row for heading, block in blocks.items() for row in [layout.plain(heading), *block]]
    return terminal.columned(columns, rows) if rows else []


def heading(line, iou: str) -> str:
    """Of which rows, of boxes or masks, at which IoU."""
    kind = {"box": "boxes", "mask": "masks"}[KINDS[line.metric]]
    return ", ".join([*[line.group] * bool(line.group), f"{kind} at IoU {iou}"])
