"""Records and the paper's numbers become tables and verdicts; no torch, so it answers at once.

    frame = tables.collect(resim_bench.evidence.read_all("work_dirs/records", tables.RECORDS))
    print(tables.render(frame))

`collect` computes (one tidy pandas frame), `render` only prints that frame, `regress` holds it against the paper and
against earlier records. (`tables` is also the import name of PyTables: never put this repository's root on another
project's path.)
"""

from tables.collect import collect
from tables.leaderboard import leaderboard
from tables.paper import RECORDS, load_tables
from tables.readings import readings, worth
from tables.show.errors import draw_errors, errors
from tables.show.everything import everything
from tables.show.figure import draw_curves, draw_lengths, draw_readings, draw_study
from tables.show.readings import beside, of_worth
from tables.show.regress import regress
from tables.show.report import FORMS, render, report
from tables.studies import file_of, load_studies, units

__all__ = [
    "FORMS",
    "RECORDS",
    "beside",
    "collect",
    "draw_curves",
    "draw_errors",
    "draw_lengths",
    "draw_readings",
    "draw_study",
    "errors",
    "everything",
    "file_of",
    "leaderboard",
    "load_studies",
    "load_tables",
    "of_worth",
    "readings",
    "regress",
    "render",
    "report",
    "units",
    "worth",
]
