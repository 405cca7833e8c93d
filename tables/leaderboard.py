"""Everything that was run here, whether a row of a table names it or not."""

from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from resim_bench import record as records_of_trials
from resim_bench.experiments import transfer_ids
from tables.collect import deviations_of
from tables.compare import spread

HEADLINES = ("AP", "box_AP", "top1")  # the metric that ranks, the first of these that a record has


def leaderboard(records: Iterable[dict]) -> pd.DataFrame:
    """A line per experiment, data set and way of deviating; of two records of a trial the first counts.

    Returns:
        A frame with `transfer`, `data` (what tells two folders of one protocol apart), `pretrain`, `metric` (the one
        that ranks), `rank` (among the experiments of its transfer and data that followed their protocols; 0 of others),
        `mean` and `std` (over pre-trainings, or over the transfers of the only one; NaN of one), `trials`,
        `pretrainings`, `others` ({metric: mean} of the rest) and `deviations`; best first within a transfer.
    """
    trials: dict[tuple, dict] = {}
    for record in records:
        trials.setdefault(records_of_trials.key(record), record)
    grouped: dict[tuple, list[dict]] = defaultdict(list)
    for record in trials.values():
        pretrain, transfer = record["pretrain"], record["transfer"]
        # The kind of digest has changed, so that what was counted tells data apart.
        seen = transfer["data"] if isinstance(transfer["data"], dict) else {}
        data = records_of_trials.digest({key: value for key, value in seen.items() if "digest" not in key})[:8]
        grouped[transfer["id"], data, pretrain["id"], deviations_of([record])].append(record)
    order = {id: place for place, id in enumerate(transfer_ids())}
    lines = [_line(transfer, data, id, found, of) for (transfer, data, id, of), found in grouped.items()]
    lines.sort(
        key=lambda line: (order.get(line["transfer"], len(order)), line["transfer"], line["data"], -line["mean"])
    )
    place: dict[tuple, int] = defaultdict(int)
    for line in lines:
        if not line["deviations"]:
            place[line["transfer"], line["data"]] += 1
            line["rank"] = place[line["transfer"], line["data"]]
    return pd.DataFrame(lines)


def _line(transfer: str, data: str, pretrain: str, records: list[dict], deviations: tuple[str, ...]) -> dict:
    by_pretraining = defaultdict(list)
    metric = next(name for name in (*HEADLINES, *records[0]["metrics"]) if name in records[0]["metrics"])
    for record in records:
        by_pretraining[record["pretrain"]["seed"]].append(record["metrics"])
    of_each = {
        name: spread([[metrics[name] for metrics in found] for found in by_pretraining.values()])
        for name in records[0]["metrics"]
    }
    means = {name: mean for name, (mean, _, _) in of_each.items()}
    return {
        "transfer": transfer,
        "data": data,
        "pretrain": pretrain,
        "metric": metric,
        "rank": 0,
        "mean": means.pop(metric),
        "std": of_each[metric][1],
        "trials": len(records),
        "pretrainings": len(by_pretraining),
        "others": {name: mean for name, mean in means.items() if not name.startswith(records_of_trials.PRINTED)},
        "deviations": deviations,
    }
