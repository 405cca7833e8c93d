"""Studies: claims and seeds that were written down before the seeds ran, and what the records say of them."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from resim_bench.experiments import Experiment, Trial, of_table
from resim_bench.record import digest
from tables import compare
from tables.paper import ROOM, load_tables
from tables.quantities import QUANTITIES
from tables.statistics import Paired, correlation, holm, paired

HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "undecided"
ALPHA = 0.05
FOLDER = ROOM / "studies"


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One side is above the other, at each of the metrics, which may be `quantities.QUANTITIES`.

    A side is a row of the study's table, or two: the first less the second.
    """

    text: str
    above: list[str]
    below: list[str]
    metrics: list[str]
    primary: bool = False


@dataclass(frozen=True, kw_only=True)
class Study:
    """A plan: the table whose rows are run, each with every seed from the first to the last, and the claims.

    `unit` says what runs together: all rows with one `seed`, or two seeds of one `row`, each on a core. With them each
    backbone is read by the `readings` of that id, since it is not kept. Without claims it is exploratory. An earlier
    edition has run and is not run again: it has `pinned` the protocols of its day, by side and id, and its records are
    those of its seeds that followed these, and no other table's.
    """

    id: str
    table: str
    first_seed: int
    last_seed: int
    claims: list[Hypothesis]
    unit: str = "seed"
    readings: str = ""
    pinned: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def seeds(self) -> range:
        """Each of a pre-training and of its transfers."""
        return range(self.first_seed, self.last_seed + 1)

    def with_readings(self, pairs: list[Experiment]) -> list[Experiment]:
        """These, and what their backbones read."""
        backbones = dict.fromkeys(pair.pretrain_id for pair in pairs) if self.readings else ()
        return pairs + [Experiment(id, self.readings) for id in backbones]

    def pins(self, record: dict) -> bool:
        """Whether a record is this earlier edition's."""
        return seed_of(record) in self.seeds and all(
            digest(record[side]["protocol"]) == self.pinned.get(side, {}).get(record[side]["id"])
            for side in ("pretrain", "transfer")
        )


def seed_of(record: dict) -> int | None:
    """The seed of a trial as a study has them, one of both sides; None of another transfer of a backbone."""
    seed = record["pretrain"]["seed"]
    return seed if seed == record["transfer"]["seed"] else None


def units(study: Study) -> list[list[Trial]]:
    """What is run, a unit after the other."""
    rows = of_table(study.table)
    if study.unit == "seed":
        return [[Trial(pair, seed) for pair in study.with_readings(rows)] for seed in study.seeds]
    twos = [study.seeds[first : first + 2] for first in range(0, len(study.seeds), 2)]
    return [[Trial(pair, seed) for pair in study.with_readings([row]) for seed in two] for row in rows for two in twos]


class Judged(NamedTuple):
    """A claim at one metric: the difference over seeds, what pairing bought, and what follows."""

    claim: Hypothesis
    metric: str
    found: Paired
    correlation: float  # of the two sides over seeds: a paired difference has 1 − r of the variance of an unpaired one
    verdict: str


@functools.cache
def load_studies() -> dict[str, Study]:
    """All plans by id, their file name."""
    plans = {file.stem: tomllib.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.toml"))}
    return {
        id: Study(id=id, **plan | {"claims": [Hypothesis(**c) for c in plan["claims"]]}) for id, plan in plans.items()
    }


def study_of(table: str) -> Study | None:
    """The study of that table; None without one."""
    return next((study for study in load_studies().values() if study.table == table), None)


def file_of(record: dict) -> str:
    """The file of kept records that one belongs into: its study, with claims and by its table first; else a table."""
    pair = record["pretrain"]["id"], record["transfer"]["id"]
    order = list(load_tables())
    for study in sorted(load_studies().values(), key=lambda study: (not study.claims, order.index(study.table))):
        of_plan = study.pins(record) if study.pinned else seed_of(record) in study.seeds
        if of_plan and pair in study.with_readings(of_table(study.table)):
            return study.id
    return next((table for table in load_tables() if pair in of_table(table)), "others")


def seeds_run(study: Study, frame: pd.DataFrame) -> list[int]:
    """The plan's seeds that every row has, by its protocol, with all that a claim asks for."""
    values: list[Mapping[int, object]] = [*_by_row(study, frame).values()]
    if any(metric in QUANTITIES for claim in study.claims for metric in claim.metrics):
        values += _details(study, frame).values()
    return [seed for seed in study.seeds if all(seed in by_seed for by_seed in values)]


def judge(study: Study, frame: pd.DataFrame) -> list[Judged]:
    """The claims at their metrics, in the plan's order; none before all the plan's seeds have run.

    The primary claim is tested by itself, all others together (Holm), each within 5 % of error on two sides.

    Args:
        frame: made by `tables.collect`.
    """
    if not study.claims or seeds_run(study, frame) != list(study.seeds):
        return []
    values, details = _by_row(study, frame), _details(study, frame)

    def side(names, metric, rows):
        quantity = QUANTITIES.get(metric)
        found = quantity({row: details[row] for row in rows}) if quantity else {r: values[r, metric] for r in rows}
        first, *second = ([found[name][seed] for seed in study.seeds] for name in names)
        return [a - b for a, b in zip(first, *second, strict=True)] if second else first

    found = []
    for claim in study.claims:
        for metric in claim.metrics:
            rows = dict.fromkeys([*claim.above, *claim.below])
            above, below = side(claim.above, metric, rows), side(claim.below, metric, rows)
            differences = [a - b for a, b in zip(above, below, strict=True)]
            found.append((claim, metric, paired(differences), correlation(above, below)))
    others = iter(holm([test.p for claim, _, test, _ in found if not claim.primary], ALPHA))
    return [
        Judged(claim, metric, test, r, _verdict(test, test.p < ALPHA if claim.primary else next(others)))
        for claim, metric, test, r in found
    ]


def _verdict(found: Paired, clear: bool) -> str:
    if not clear:
        return UNDECIDED
    return HOLDS if found.mean > 0 else REVERSED


def _details(study: Study, frame: pd.DataFrame) -> dict[str, dict[int, dict]]:
    """`{row: {seed: detail}}` of the trials that followed the protocol and have one."""
    return {
        line.name: {seed: of for seed, of in line.details.items() if of and line.verdict != compare.DEVIATES}
        for line in frame.loc[frame.table == study.table, ["name", "details", "verdict"]].itertuples()
    }


def _by_row(study: Study, frame: pd.DataFrame) -> Mapping[tuple[str, str], dict[int, float]]:
    """`{(row, metric): {seed: value}}` of the trials that followed the protocol."""
    return {
        (line.name, line.metric): line.by_seed if line.verdict != compare.DEVIATES else {}
        for line in frame.loc[frame.table == study.table, ["name", "metric", "by_seed", "verdict"]].itertuples()
    }
