"""Records and the paper's numbers become tables and verdicts; no torch, so it answers at once.

    frame = tables.collect(resim_bench.record.read_all("work_dirs/records", tables.RECORDS))
    print(tables.render(frame))

`collect` computes (one tidy pandas frame), `render` only prints that frame. (`tables` is also the import name
of PyTables: never put this repository's root on another project's path.)
"""

from tables.collect import collect
from tables.paper import RECORDS, load_tables
from tables.render import render, report

__all__ = ["RECORDS", "collect", "load_tables", "render", "report"]
