"""What ReSim gains over MoCo-v2, ours against the paper's: an offset of framework cancels in it."""

import math

import pandas as pd

from tables import compare
from tables.paper import load_tables

METHOD = "ReSim"  # what the labels of its rows begin with


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of a frame of `tables.collect` that are ReSim's, with its gains where both rows can be compared.

    Of the frame's columns, `reported` and `ours` are gains in per cent here, `difference` is ours − reported, `error`
    has the errors of both rows; `low`, `high` and `verdict` follow from them, with the bounds of values.
    """
    compared = frame[frame.verdict.isin(compare.COMPARED)]
    lines = {(line.table, line.row, line.metric): line for line in compared.itertuples()}
    found = []
    bases = {table.id: table.number(table.gain_over) for table in load_tables().values()}
    for (table, _, metric), line in lines.items():
        over = lines.get((table, bases[table], metric))
        if over is not None and line.label.startswith(METHOD):
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
                    "verdict": compare.verdict(metric, difference, error),
                }
            )
    return pd.DataFrame(found, columns=frame.columns)
