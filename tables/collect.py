"""Records beside the reported numbers: one tidy frame, the only source of everything that is printed."""

import functools
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from resim_bench import record as records_of_trials
from resim_bench.experiments import of_recipe
from tables import compare, studies
from tables.compare import NAN
from tables.paper import Row, Table, load_protocols, load_tables
from tables.statistics import paired

JUDGED = "judged"  # among a frame's `attrs`: what a study's records say of its claims, by the study's id
Protocols = Mapping[str, Mapping[str, str]]  # digests by side and id
KINDS = {"AP": "box", "box_AP": "box", "mask_AP": "mask"}  # of what each metric is the AP
HELD = 2  # images per GPU of the original trainings held: what a batch is padded to depends on it


def collect(records: Iterable[dict]) -> pd.DataFrame:
    """One line per table, row and metric, in the paper's order.

    `name` is what tells a row from the table's others, `heading` the metric as the table prints it. `attrs` have the
    judged claims of each study (`JUDGED`).

    All numbers are in per cent and unrounded, NaN where there is none:

    * `reported` and `reported_delta`, its difference to the row that the paper subtracts;
    * `ours` (the mean over pre-trainings of the mean over their transfers), `std` (over pre-trainings, or over the
      transfers of the only one; NaN of one), `error_ours` (standard error), `trials`, `pretrainings` (how many);
    * `difference` (ours − reported), its standard `error`, its 95 % interval `low` … `high`, the `verdict` (of a row of
      a study, that of the claim which puts it above another);
    * `delta`, what `reported_delta` is, of ours;
    * `by_seed`, `{seed of the pre-training: mean over its transfers}`; in the table of a study of the one whose seed is
      the same, as it has them;
    * `versus`, `{label: tables.statistics.Paired}` of the rows of its table that it is compared with, seed by seed;
    * `earlier`, `ours` and `std` of that row in the table of an earlier edition, NaN where there is none.

    `epochs` are those of the pre-training; `details` is `{its seed: detail of its first such transfer, or None}`,
    `detections` `{(seed of the pre-training, of the transfer): sha256}` of those that were kept.

    Of AP there is what errors cost, as far as the records say it: `costs` is `{IoU: {name of record.ERRORS: (mean,
    std)}}`, the mean and `std` as above, of `costed` trials; empty and 0 of other metrics. `by_iou` is the same AP at
    each threshold, `{IoU in per cent: (mean, std)}`.

    `ran` is the id that the records are from: the row's `pretrain` or, where only the authors' weights have been
    through the transfer, `released`; never both. `deviations` is a tuple of sentences like `pretrain.epochs 200 → 1`,
    empty when the protocol was followed; where it was not, nothing is compared. `held` are the images that a process of
    the transfers held where that was not `HELD`. `devices` and `commits` are those of
    the records; `source`, `copied_from`, `recipe`, `protocol`, `evidence`, `witness` and `elsewhere` are the row's.

    Of an experiment's records those that deviate count only while no other is there. Of two records of one trial
    (same ids and seeds) the first counts: give the local ones before the committed ones, so that what was run
    here is what is shown. A study without claims compares rows with each other: only the seeds of its plan count, so
    that all its means are of the same ones.
    """
    earlier = [study for study in studies.load_studies().values() if study.pinned]
    today, *editions = _by_edition(list(records), earlier)
    by_edition = dict(zip([study.id for study in earlier], editions, strict=True))
    lines: list[dict] = []
    for table in load_tables().values():
        study = studies.study_of(table.id)
        seeds = study.seeds if study and not study.claims else None
        by_experiment = by_edition[study.id] if study and study.pinned else today
        pinned = study.pinned if study and study.pinned else None
        counting = [_counting(row, by_experiment, seeds, pinned) for row in table.rows]
        of_table = {
            (number, metric): _line(table, number, metric, deviations, ran, trials)
            for number, (ran, trials) in enumerate(counting)
            for deviations in [deviations_of(trials, pinned)]
            for metric in table.metrics
        }
        lines += _with_deltas(table, of_table)
    return _with_earlier(_with_differences(_with_claims(pd.DataFrame(lines))))


def _by_edition(records: list[dict], earlier: Sequence[studies.Study]) -> list[dict[tuple[str, str], list[dict]]]:
    """Records by their pair of ids: those of no earlier edition, then those of each."""
    found: list[dict] = [defaultdict(list) for _ in range(1 + len(earlier))]
    for record in records:
        of = [number for number, study in enumerate(earlier, 1) if study.pins(record)]
        for number in of or [0]:
            found[number][record["pretrain"]["id"], record["transfer"]["id"]].append(record)
    return found


def _with_differences(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `versus`, each line's differences to the rows that its table names, over the seeds of both.

    A row's own group comes first where a label is in several. Rows that deviate are compared where they do alike.
    """
    tables = load_tables()
    lines = {(line.table, line.row, line.metric): line for line in frame.itertuples()}
    versus = []
    for line in frame.itertuples():
        table = tables[line.table]
        found = {}
        for label in table.differences:
            other = lines[line.table, table.number(label, line.group), line.metric]
            theirs = other.by_seed if other.deviations == line.deviations else {}
            differences = [value - theirs[seed] for seed, value in line.by_seed.items() if seed in theirs]
            if label != line.label and len(differences) > 1:
                found[label] = paired(differences)
        versus.append(found)
    return frame.assign(versus=versus)


def _with_earlier(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `earlier`: what the table of an earlier edition has in the row of that name."""
    editions = {table.id: table.earlier for table in load_tables().values()}
    keys = list(zip(frame.table, frame.name, frame.metric, strict=True))
    ours = dict(zip(keys, zip(frame.ours, frame["std"], strict=True), strict=True))
    keys = [(editions[table], name, metric) for table, name, metric in keys]
    return frame.assign(earlier=[ours.get(key, (NAN, NAN)) for key in keys])


def _with_claims(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a study's verdict at each row that a claim puts above another, like `above MoCo-v2: holds`."""
    found = {id: studies.judge(study, frame) for id, study in studies.load_studies().items()}
    frame.attrs[JUDGED] = _Judgements(found)
    for id, found in frame.attrs[JUDGED].items():
        of_study = frame.table == studies.load_studies()[id].table
        for judged in found:
            if len(judged.claim.above) == 1:
                below = frame.label[of_study & (frame.name == judged.claim.below[0])].iloc[0]
                place = of_study & (frame.name == judged.claim.above[0]) & (frame.metric == judged.metric)
                frame.loc[place, "verdict"] = f"above {below}: {judged.verdict}"
    return frame


class _Judgements(dict):
    """By study; pandas copies a frame's `attrs` deeply at every step, which these need not be."""

    def __deepcopy__(self, memo):
        return self


def _counting(
    row: Row, by_experiment: dict, seeds: Collection[int] | None, pinned: Protocols | None
) -> tuple[str, list[dict]]:
    """The id that a row's records are from, and one record per trial; of all seeds where `seeds` is None."""
    for must_follow in (True, False):
        for ran in (row.pretrain, row.released):
            first: dict[tuple, dict] = {}
            for record in by_experiment[ran, row.transfer]:
                follows = not (must_follow and deviations_of([record], pinned))
                if follows and (seeds is None or studies.seed_of(record) in seeds):
                    first.setdefault(records_of_trials.key(record), record)
            if first:
                return ran, list(first.values())
    return "", []


def deviations_of(trials: list[dict], pinned: Protocols | None = None) -> tuple[str, ...]:
    """How these records deviate, a sentence per setting; empty where all followed the protocols, by default today's."""
    named: dict = defaultdict(dict)  # of the runs' values: ordered, each once
    unnamed: dict = {}
    for trial in trials:
        for setting, (canonical, run) in records_of_trials.deviations(trial).items():
            named[setting, _short(canonical)][_short(run)] = None
        for side, digests in (load_protocols() if pinned is None else pinned).items():
            id = of_recipe(trial[side]["id"])
            if (
                id in digests
                and not trial[side]["deviations"]
                and records_of_trials.digest(trial[side]["protocol"]) != digests[id]
            ):
                unnamed[f"{side}.protocol is another than {id}'s of today"] = None
    return (*(f"{setting} {before} → {' / '.join(runs)}" for (setting, before), runs in named.items()), *unnamed)


def _short(value, width: int = 24) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def _line(table: Table, number: int, metric: str, deviations: tuple[str, ...], ran: str, trials: list[dict]) -> dict:
    row = table.rows[number]
    noise = table.noise(metric)
    ours = compare.summarise(noise, _by_pretraining(table, metric, trials).values())
    reported = row.reported.get(metric, NAN)
    compared = bool(ours.trials and row.reported and not deviations)
    difference = ours.mean - reported if compared else NAN
    error = compare.standard_error(noise, ours.error, row.paper_trials) if compared else NAN
    if compared:
        verdict = compare.verdict(noise, difference, error)
    elif ours.trials and deviations:
        verdict = compare.DEVIATES
    elif row.reported:
        verdict = compare.NO_CHECKPOINT if row.unavailable else compare.UNVERIFIED
    else:
        verdict = compare.NO_VERDICT
    kind = KINDS.get(metric)
    costs, costed = _costs(trials, kind)
    study = studies.study_of(table.id)  # which compares seeds, and another transfer of a backbone is none
    trials_of_seeds = [trial for trial in trials if not study or studies.seed_of(trial) is not None]
    by_seed = _by_pretraining(table, metric, trials_of_seeds)
    return {
        "table": table.id,
        "row": number,
        "name": row.name,
        "heading": table.heading(metric),
        "group": row.group,
        "label": row.label,
        "window": row.window,
        "pretrain": row.pretrain,
        "transfer": row.transfer,
        "metric": metric,
        "reported": reported,
        "ours": ours.mean,
        "std": ours.std,
        "error_ours": ours.error,
        "by_seed": {seed: statistics.fmean(values) for seed, values in by_seed.items()},
        "costs": costs,
        "costed": costed,
        "details": {trial["pretrain"]["seed"]: trial.get("detail") for trial in reversed(trials_of_seeds)},
        "detections": {
            records_of_trials.key(trial)[2:]: trial["detections"]["sha256"] for trial in trials if "detections" in trial
        },
        "by_iou": _spreads(_details(trials, kind, "by_iou")),
        "trials": ours.trials,
        "pretrainings": ours.pretrainings,
        "epochs": trials[0]["pretrain"]["epochs"] if trials else NAN,
        "difference": difference,
        "error": error,
        "low": difference - compare.Z_95 * error,
        "high": difference + compare.Z_95 * error,
        "verdict": verdict,
        "deviations": deviations,
        "held": tuple(sorted({trial["transfer"].get("images_per_process", HELD) for trial in trials} - {HELD})),
        "ran": ran,
        "devices": _each(trials, "device"),
        "commits": _each(trials, "commit"),
        "source": row.source,
        "copied_from": row.copied_from,
        "recipe": row.recipe,
        "protocol": row.protocol,
        "evidence": row.evidence,
        "witness": row.witness,
        "elsewhere": row.elsewhere.get(metric, NAN),
    }


def _by_pretraining(table: Table, metric: str, trials: list[dict]) -> dict[int, list[float]]:
    """What the trials have of a metric, by the seed of the pre-training."""
    found = defaultdict(list)
    for trial in trials:
        # What the paper reports of VOC is of rounded detections; among our own rows none are rounded.
        of_trial, printed = trial["metrics"], records_of_trials.PRINTED + metric
        name = printed if table.reports and printed in of_trial else metric
        if name in of_trial:
            found[trial["pretrain"]["seed"]].append(of_trial[name])
    return found


def _costs(trials: list[dict], kind: str | None) -> tuple[dict[str, dict[str, tuple[float, float]]], int]:
    """What errors cost of a kind of AP, and in how many of the trials that is known."""
    found = _details(trials, "errors", kind)
    ious = next(iter(found.values()))[0] if found else ()
    costs = {iou: _spreads({seed: [of[iou] for of in each] for seed, each in found.items()}) for iou in ious}
    return costs, sum(map(len, found.values()))


def _details(trials: list[dict], *place: str | None) -> dict[int, list[dict]]:
    """What the records' details have at a place, by the seed of the pre-training; nothing of records without it."""
    found = defaultdict(list)
    for trial in trials:
        inside = functools.reduce(lambda node, name: node.get(name, {}), place, trial.get("detail", {}))
        if inside:
            found[trial["pretrain"]["seed"]].append(inside)
    return found


def _spreads(found: dict[int, list[dict]]) -> dict[str, tuple[float, float]]:
    """Mean and spread of each name that all have."""
    names = next(iter(found.values()))[0] if found else ()
    return {
        name: compare.spread([[of[name] for of in each] for each in found.values()])[:2]
        for name in names
        if all(name in of for each in found.values() for of in each)
    }


def _each(trials: list[dict], key: str) -> str:
    return " / ".join(dict.fromkeys(trial[key] for trial in trials))


def _with_deltas(table: Table, lines: dict[tuple[int, str], dict]) -> Iterable[dict]:
    """The lines with what the paper subtracts from each; ours only where both rows followed their protocol."""
    first = table.number(table.delta_to)
    for (number, metric), line in lines.items():
        base = lines[first, metric] if first is not None and number > first else None
        follow = base is not None and compare.DEVIATES not in (line["verdict"], base["verdict"])
        yield line | {
            "reported_delta": line["reported"] - base["reported"] if base else NAN,
            "delta": line["ours"] - base["ours"] if base and follow else NAN,
        }
