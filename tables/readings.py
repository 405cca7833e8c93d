"""What the monitor's readings say of frozen AP: each backbone's readings beside the AP of the very same file."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from resim_bench import record as records_of_trials
from resim_bench.experiments import readings_ids
from tables import studies
from tables.collect import deviations_of
from tables.paper import Table
from tables.statistics import Points, correlation_within, jackknife, left_out, line, mean_alone

HEADLINES = ("AP", "box_AP")  # of a transfer, the first of these that it has


def readings(records: Iterable[dict], table: Table | None = None) -> pd.DataFrame:
    """A line per backbone that was read and frozen transfer of that file, or one without.

    Pre-trainings that deviate are left out, and so are transfers that do. Of two records of a trial of
    one file the first counts.

    Args:
        table: whose rows are meant, by their labels; all backbones, by their ids, without one.

    Returns:
        A frame with `readings` (their id), `images` (a digest of what was read, and how), `method`, `seed` (of the
        pre-training), `found` ({reading: per cent}), `transfer` ("" without one) and `AP` (the mean over its
        transfers; NaN without one), in the records' order.
    """
    study = studies.study_of(table.id) if table else None
    pinned = study.pinned if study and study.pinned else None
    labels = {name: row.label for row in (table.rows if table else ()) for name in (row.pretrain, row.released)}
    trials: dict[tuple, dict] = {}
    for record in records:
        trials.setdefault((*records_of_trials.key(record), record["pretrain"]["backbone_sha256"]), record)
    known, read = readings_ids(), []
    tested = {row.transfer for row in table.rows} if table else None
    by_backbone: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in trials.values():
        pretrain, transfer = record["pretrain"], record["transfer"]
        deviates = deviations_of([record], pinned)
        if table and pretrain["id"] not in labels:
            continue
        if transfer["id"] in known and not any(sentence.startswith("pretrain.") for sentence in deviates):
            read.append(record)
        elif _is_frozen(transfer["id"]) and (tested is None or transfer["id"] in tested) and not deviates:
            metric = next(name for name in HEADLINES if name in record["metrics"])
            by_backbone[_backbone(record)][transfer["id"]].append(record["metrics"][metric])
    lines = [
        {
            "readings": record["transfer"]["id"],
            "images": images_of(record),
            "method": labels.get(record["pretrain"]["id"], record["pretrain"]["id"]),
            "seed": record["pretrain"]["seed"],
            "found": record["metrics"],
            "transfer": transfer,
            "AP": ap,
        }
        for record in read
        for transfer, ap in _means(by_backbone.get(_backbone(record), {})).items()
    ]
    return pd.DataFrame(lines, columns=["readings", "images", "method", "seed", "found", "transfer", "AP"])


def images_of(record: dict) -> str:
    """What two records of readings have in common where they can be compared: the images, and how they were read."""
    return records_of_trials.digest({key: record["transfer"][key] for key in ("protocol", "data")})


def _is_frozen(transfer_id: str) -> bool:
    return "frozen" in transfer_id.split("-")


def _backbone(record: dict) -> tuple:
    """Which file it is: a seed trained anew is another one, whose numbers may differ."""
    return tuple(record["pretrain"][key] for key in ("id", "seed", "backbone_sha256"))


def _means(by_transfer: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.fmean(values) for name, values in by_transfer.items()} or {"": math.nan}


def points(frame: pd.DataFrame, reading: str) -> Points:
    """Reading and AP of each method's seeds, of the lines of one transfer."""
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for one in frame.itertuples():
        found[one.method].setdefault(one.seed, (one.found[reading], one.AP))
    return found


def worth(frame: pd.DataFrame) -> pd.DataFrame:
    """How well each reading predicts the AP of each transfer, in the lines that `readings` makes.

    Returns:
        A frame with a line per `readings`, `images`, `transfer` and `reading`, and how many `methods` and `backbones`
        there are, `seeds` of the method with the fewest and of that with the most. Each `tables.statistics.Estimate`
        has its standard error over seeds: `correlation` within methods; `error` of AP, of one method predicted by a
        line through all others; the same `by_mean` of the others; and the difference, `gain`. NaN is what there is too
        little for.
    """
    lines = []
    for (id, images, transfer), part in frame[frame.transfer != ""].groupby(
        ["readings", "images", "transfer"], sort=False
    ):
        for reading in part.found.iloc[0]:
            of_reading = points(part, reading)
            lines.append(
                {
                    "readings": id,
                    "images": images,
                    "transfer": transfer,
                    "reading": reading,
                    "methods": len(of_reading),
                    "backbones": len(part),
                    "seeds": (min(map(len, of_reading.values())), max(map(len, of_reading.values()))),
                    "correlation": jackknife(correlation_within, of_reading),
                    "error": jackknife(lambda points: left_out(points, line), of_reading),
                    "by_mean": jackknife(lambda points: left_out(points, mean_alone), of_reading),
                    "gain": jackknife(lambda points: left_out(points, mean_alone) - left_out(points, line), of_reading),
                }
            )
    return pd.DataFrame(lines)
