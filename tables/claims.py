"""What the summary says in words, held against its own numbers and against ours; and what the method gains, judged."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from tables import compare
from tables.paper import Statement, Table, load_paper, load_tables

HOLDS, TIE, FAILS = "holds", "tie", "fails"


class Compared(NamedTuple):
    """One row above another, or not, at one metric."""

    table: str
    above: str
    below: str
    metric: str
    outcome: str


def check(frame: pd.DataFrame, claim: Statement, side: str) -> list[Compared]:
    """Every comparison of a claim whose numbers are there.

    Args:
        frame: made by `tables.collect`.
        claim: as `claims.toml` has it.
        side: `reported`, where printed digits decide, or `ours`, where a difference within its noise is a `tie` and
            rows that deviate do not count.
    """
    numbers = {
        (table, row, metric): (value, 0.0 if side == "reported" else error)
        for table, row, metric, value, error, verdict in zip(
            frame.table, frame.row, frame.metric, frame[side], frame.error_ours, frame.verdict, strict=True
        )
        if not math.isnan(value) and (side == "reported" or verdict != compare.DEVIATES)
    }
    found = []
    tables = load_tables()
    places = {(table.id, row.name): number for table in tables.values() for number, row in enumerate(table.rows)}
    for table, high, low in _pairs(claim, tables):
        terms = [(1, table, high), (-1, table, low)]
        if claim.gain:
            terms += [(-1, claim.gain, high), (1, claim.gain, low)]
        for metric in tables[table].metrics:
            factors = {(id, places[id, name], metric): factor for factor, id, name in terms}
            if factors.keys() <= numbers.keys():
                difference = sum(factor * numbers[place][0] for place, factor in factors.items())
                error = math.hypot(*(numbers[place][1] for place in factors))
                outcome = {1: HOLDS, 0: TIE, -1: FAILS}[compare.sign(round(difference, 6), error)]
                found.append(Compared(table, high, low, metric, outcome))
    return found


def _pairs(claim: Statement, tables: dict[str, Table]) -> Iterator[tuple[str, str, str]]:
    """Table, and the names of the row that should be above and of the one below."""
    for id in claim.tables:
        names = [row.name for row in tables[id].rows]
        for high in names:
            for low in names:
                if low != high and re.fullmatch(claim.above, high) and re.fullmatch(claim.below, low):
                    yield id, high, low


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of a frame of `tables.collect` of a paper's method, with its gains where both rows can be compared.

    Of the frame's columns, `reported` and `ours` are gains in per cent here, `difference` is ours − reported, `error`
    has the errors of both rows; `low`, `high` and `verdict` follow from them, with the bounds of values.
    """
    compared = frame[frame.verdict.isin(compare.COMPARED)]
    lines = {(line.table, line.row, line.metric): line for line in compared.itertuples()}
    found = []
    tables = load_tables()
    bases = {table.id: table.number(table.gain_over) for table in tables.values()}
    for (table, _, metric), line in lines.items():
        over = lines.get((table, bases[table], metric))
        if over is not None and line.label.startswith(load_paper(tables[table].paper).method):
            reported, ours = line.reported - over.reported, line.ours - over.ours
            difference, error = ours - reported, math.hypot(line.error, over.error)
            found.append(
                line._asdict()
                | {
                    "reported": reported,
                    "ours": ours,
                    "difference": difference,
                    "error": error,
                    "low": difference - compare.Z_95 * error,
                    "high": difference + compare.Z_95 * error,
                    "verdict": compare.verdict(tables[table].noise(metric), difference, error),
                }
            )
    return pd.DataFrame(found, columns=frame.columns)
