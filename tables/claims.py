"""What the summary says in words, held against its own numbers and against ours."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from tables import compare
from tables.paper import Claim, Table, load_tables

HOLDS, TIE, FAILS = "holds", "tie", "fails"


class Comparison(NamedTuple):
    """One row above another, or not, at one metric."""

    table: str
    above: str
    below: str
    metric: str
    outcome: str


def check(frame: pd.DataFrame, claim: Claim, side: str) -> list[Comparison]:
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
                found.append(Comparison(table, high, low, metric, outcome))
    return found


def _pairs(claim: Claim, tables: dict[str, Table]) -> Iterator[tuple[str, str, str]]:
    """Table, and the names of the row that should be above and of the one below."""
    for id in claim.tables:
        names = [row.name for row in tables[id].rows]
        for high in names:
            for low in names:
                if low != high and re.fullmatch(claim.above, high) and re.fullmatch(claim.below, low):
                    yield id, high, low
