"""Records beside the reported numbers: one tidy frame, the only source of everything that is printed."""

from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from resim_bench import record as records_of_trials
from tables import compare
from tables.paper import Row, Table, load_tables

COLUMNS = [
    "table",
    "row",
    "group",
    "label",
    "window",
    "pretrain",
    "transfer",
    "metric",
    "reported",
    "ours",
    "std",
    "trials",
    "difference",
    "verdict",
    "deviations",
]


def collect(records: Iterable[dict]) -> pd.DataFrame:
    """One line a table, row and metric, in the paper's order.

    `reported`, `ours` (the mean over trials), `std` (over trials, NaN below two) and `difference` are in per cent
    and unrounded, NaN where there is none; `trials` counts the records behind `ours`; `deviations` is a tuple of
    sentences like `pretrain.epochs 200 → 1`, empty when the protocol was followed.

    Of an experiment's records those that deviate count only while no other is there. Of two records of one trial
    (same ids and seeds) the first counts: give the local ones before the committed ones, so that what was run
    here is what is shown.
    """
    by_experiment = defaultdict(list)
    for record in records:
        by_experiment[record["pretrain"]["id"], record["transfer"]["id"]].append(record)
    lines = [
        _line(table, number, row, metric, trials)
        for table in load_tables().values()
        for number, row in enumerate(table.rows)
        for trials in [_counting(by_experiment[row.experiment])]
        for metric in table.metrics
    ]
    frame = pd.DataFrame(lines, columns=COLUMNS)
    numbers = ["reported", "ours", "std", "difference"]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def _counting(records: list[dict]) -> list[dict]:
    followed = [record for record in records if not records_of_trials.deviations(record)]
    first: dict[tuple, dict] = {}
    for record in followed or records:
        first.setdefault(records_of_trials.trial(record), record)
    return list(first.values())


def _line(table: Table, number: int, row: Row, metric: str, trials: list[dict]) -> list:
    reported = row.reported.get(metric, float("nan"))
    values = pd.Series([trial["metrics"].get(metric) for trial in trials], dtype="float64").dropna()
    deviations = _sentences(trials)
    difference = float("nan")
    if not len(values):
        verdict = compare.UNVERIFIED if row.reported else compare.NO_VERDICT
    elif deviations:
        verdict = compare.DEVIATES
    elif not row.reported:
        verdict = compare.NO_VERDICT
    else:
        difference = values.mean() - reported
        verdict = compare.verdict(metric, difference, values.std(), len(values))
    return [
        table.id,
        number,
        row.group,
        row.label,
        row.window,
        row.pretrain,
        row.transfer,
        metric,
        reported,
        values.mean(),
        values.std(),
        len(values),
        difference,
        verdict,
        deviations,
    ]


def _sentences(trials: list[dict]) -> tuple[str, ...]:
    differing: dict = defaultdict(dict)  # of the runs' values: ordered, each once
    for trial in trials:
        for setting, (canonical, run) in records_of_trials.deviations(trial).items():
            differing[setting, _short(canonical)][_short(run)] = None
    return tuple(f"{setting} {before} → {' / '.join(runs)}" for (setting, before), runs in differing.items())


def _short(value, width: int = 24) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
