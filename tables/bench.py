"""Tables over more records than anyone has run, for `resim-bench bench growth`."""

import copy
from collections.abc import Callable
from pathlib import Path

from resim_bench import evidence, record
from tables.collect import collect
from tables.paper import RECORDS


def over_records(folder: Path, count: int) -> Callable[[], object]:
    """Reading `count` records and collecting them; they are the kept ones, over and over, with other seeds.

    Args:
        folder: where a folder of them is made.
    """
    kept, root = evidence.read(RECORDS), folder / f"records-{count}"
    entries = [copy.deepcopy(record.content(kept[i % len(kept)])) for i in range(count)]
    for i, entry in enumerate(entries):
        entry["pretrain"]["seed"] += 1000 * (i // len(kept))
    root.mkdir()
    evidence.write(root, "all", entries)
    return lambda: collect(evidence.read(root))
