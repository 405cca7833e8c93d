"""What `make regress` says: our numbers against the paper's, ReSim's gains, and new records against kept ones."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from resim_bench import evidence, record
from tables import compare
from tables.claims import gains
from tables.collect import collect
from tables.compare import ABOVE, BELOW, COMPARED, DEVIATES, MATCH
from tables.paper import load_paper, load_tables
from tables.show import prose, terminal
from tables.show.layout import counted, is_ap, one_decimal, plain
from tables.show.terminal import Column
from tables.statistics import holm, prediction_interval
from tables.studies import load_studies, seeds_run

WORSE, BETTER, AS_BEFORE = "worse", "better", "as before"


def regress(new_root: Path, kept_root: Path) -> tuple[str, int]:
    """The report on all records, and the exit code: 1 when a published result is not reached, or a new trial of a study
    falls outside of where the kept ones say it belongs; else 0.

    Not reached is an AP of a row whose recipe is `published` that is `below`, after Holm's correction over all those
    that were compared. Box and mask AP of COCO are two such numbers: a broken mask head shows in mask AP alone.

    Args:
        new_root: records of the work directory; of one trial in both places, these are believed.
        kept_root: records kept as evidence; those of `new_root` that are not among them are held against them.

    Raises:
        UserError: a broken record.
    """
    new, kept = evidence.read_all(new_root), evidence.read_all(kept_root)
    frame = collect([*new, *kept])
    known = [record.content(one) for one in kept]
    others = [one for one in new if record.content(one) not in known]
    now, before = collect(others), collect(kept)
    of_studies, outside = _against_studies(now, before)
    judged = frame[(frame.recipe == "published") & frame.metric.map(is_ap) & frame.verdict.isin(COMPARED)]
    tables = load_tables()
    p_values = [
        compare.p_below(tables[line.table].noise(line.metric), line.difference, line.error)
        for line in judged.itertuples()
    ]
    failed = judged[holm(p_values)]
    parts = [
        _against_the_paper(frame),
        _gains(frame),
        _claims(frame),
        _against_earlier(now, before),
        of_studies,
        _unchecked([*others, *kept]),
        _verdict(failed, len(judged), outside),
    ]
    return "\n\n\n".join(part for part in parts if part) + "\n", int(len(failed) > 0 or len(outside) > 0)


def _against_the_paper(frame: pd.DataFrame) -> str:
    numbers = frame[frame.reported.notna()]
    verified = numbers.verdict.isin(COMPARED)
    said = prose.on_numbers(frame)
    text = f"{said.numbers}, {said.rows}{f' ({said.found})' if said.found else ''}"
    text = f"{'; '.join([text, *said.others])}."
    heads = numbers[numbers.metric.map(is_ap)].drop_duplicates(["table", "row"])
    deviating = prose.deviating(heads, lambda line: f"{line.name} ({line.table})")
    return _block("Against the paper", [("", text), *deviating], _grid(numbers[verified & (numbers.verdict != MATCH)]))


def _gains(frame: pd.DataFrame) -> str:
    judged = gains(frame)
    if not len(judged):
        return ""
    counts = Counter(judged.verdict)
    found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in COMPARED if counts[verdict])
    papers = [load_paper(name) for name in dict.fromkeys(load_tables()[id].paper for id in judged.table)]
    whose = " and ".join(f"{paper.method} over {paper.baseline}" for paper in papers)
    text = f"{len(judged)} gains of {whose} judged, where an offset of framework cancels: {found}."
    shown = judged[judged.metric.map(is_ap) | judged.verdict.isin([BELOW, ABOVE])]
    return _block("Gains", [("", text)], _grid(shown, signed=True))


def _claims(frame: pd.DataFrame) -> str:
    items = prose.on_claims(frame, "ours")
    return _block("What the summary says", items) if items else ""


def _against_earlier(new: pd.DataFrame, kept: pd.DataFrame) -> str:
    columns = ["ran", "transfer", "metric"]
    both = _followed(new).merge(_followed(kept), on=columns, suffixes=("_now", "_before"))
    if not len(both):
        return ""
    both["difference"] = both.ours_now - both.ours_before
    both["error"] = [math.hypot(*errors) for errors in zip(both.error_ours_now, both.error_ours_before, strict=True)]
    both["verdict"] = [
        {1: BETTER, 0: AS_BEFORE, -1: WORSE}[compare.sign(*line)]
        for line in zip(both.difference, both.error, strict=True)
    ]
    counts = Counter(both.verdict)
    found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (WORSE, BETTER, AS_BEFORE) if counts[verdict])
    experiments = len(both.drop_duplicates(["ran", "transfer"]))
    text = f"{len(both)} numbers stand in kept records, too ({counted(experiments, 'experiment')}): {found}."
    header = ["pre-train", "transfer", "metric", "before", "now", "difference, 95 %", "verdict"]
    rows: list[terminal.GridRow] = [
        [
            line.ran,
            line.transfer,
            plain(line.heading_now),
            f"{one_decimal(line.ours_before)} ({line.trials_before})",
            f"{one_decimal(line.ours_now)} ({line.trials_now})",
            f"{one_decimal(line.difference, signed=True)} ± {compare.Z_95 * line.error:.1f}",
            line.verdict,
        ]
        for line in both[both.verdict != AS_BEFORE].itertuples()
    ]
    grid = terminal.columned(_columns(header), rows) if rows else []
    return _block("New records against kept ones", [("", text)], grid)


def _followed(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of experiments that ran by their protocol, once each; not of tables that scatter more."""
    checked = [id for id, table in load_tables().items() if table.check]
    kept = frame[(frame.trials > 0) & (frame.verdict != DEVIATES) & frame.table.isin(checked)]
    return kept.drop_duplicates(["ran", "transfer", "metric"])


def _against_studies(new: pd.DataFrame, kept: pd.DataFrame) -> tuple[str, list[str]]:
    """Where one more trial of each row belongs, by the kept ones of a study of today, and what the new ones are.

    Returns:
        The report, and a phrase for each new AP that is outside.
    """
    parts, outside = [], []
    for study in load_studies().values():
        seeds = seeds_run(study, kept)
        if len(seeds) < len(study.seeds) or not study.claims or study.pinned:
            continue  # no trial of today is one more of an earlier edition
        table = load_tables()[study.table]
        rows: list[terminal.GridRow] = []
        for line, of_new in zip(
            kept[kept.table == table.id].itertuples(), new[new.table == table.id].itertuples(), strict=True
        ):
            if not is_ap(line.metric):
                continue
            recorded = [line.by_seed[seed] for seed in seeds]
            low, high = prediction_interval(recorded)
            found = {seed: value for seed, value in of_new.by_seed.items() if of_new.verdict != DEVIATES}
            words = [f"{one_decimal(value)} (seed {seed})" for seed, value in found.items()]
            misses = [word for word, value in zip(words, found.values(), strict=True) if not low <= value <= high]
            outside += [f"{line.name} {line.heading} {word}" for word in misses]
            mean = statistics.fmean(recorded)
            rows.append(
                [
                    f"  {plain(line.name)}",
                    line.heading,
                    one_decimal(mean),
                    f"{one_decimal(low)} … {one_decimal(high)}",
                    one_decimal(mean - low),
                    ", ".join(words) or "none",
                    ("outside" if misses else "inside") if words else "",
                ]
            )
        header = ["  row", "metric", "mean", "99 %", "smallest drop", "new", "verdict"]
        text = (
            f"{len(seeds)} seeds are recorded. If nothing has changed, 99 % of further ones fall into "
            "m ± t s √(1 + 1/n); the smallest drop that would be seen is half of that interval."
        )
        parts.append(_block(f"A new trial of {table.id}", [("", text)], terminal.columned(_columns(header), rows)))
    return "\n\n\n".join(parts), outside


def _unchecked(records: list[dict]) -> str:
    """How many records nobody can check for changes."""
    without = sum(record.CHECKSUM not in one for one in records)
    if not without:
        return ""
    text = f"{without} of {len(records)} records have no checksum, being from before there was one: taken as they are."
    return terminal.item("", text)


def _verdict(failed: pd.DataFrame, judged: int, outside: list[str]) -> str:
    found = [f"{', '.join(outside)} outside of what the recorded trials predict"] if outside else []
    if not judged:
        found.append("no AP of a row with a published recipe has been compared yet")
    elif len(failed):
        where = [f"{line.name} {line.heading} in {line.table}" for line in failed.itertuples()]
        found.append(f"{', '.join(where)} below the paper (95 %, Holm over {judged} AP of published recipes)")
    else:
        found.append(f"none of {judged} AP of published recipes is below the paper (95 %, Holm)")
    regression = "Regression" if outside or len(failed) else "No regression"
    return terminal.item("", f"{regression}: {'; '.join(found)}.")


def _grid(frame: pd.DataFrame, signed: bool = False) -> list[str]:
    """Numbers beside the paper's with the interval of their difference, a table's id above its rows."""
    if not len(frame):
        return []
    header = ["  row", "metric", "paper", "ours", "diff", "95 %", "verdict", "recipe"]
    rows: list[terminal.GridRow] = []
    for id, of_table in frame.groupby("table", sort=False):
        rows.append(str(id))
        for line in of_table.itertuples():
            numbers = [one_decimal(value, signed) for value in (line.reported, line.ours)]
            interval = " … ".join(one_decimal(value, signed=True) for value in (line.low, line.high))
            difference = one_decimal(line.difference, signed=True)
            name = f"  {plain(line.name)}"
            rows.append([name, plain(line.heading), *numbers, difference, interval, line.verdict, line.recipe])
    return terminal.columned(_columns(header), rows)


def _columns(header: Iterable[str]) -> list[Column]:
    words = ("  row", "pre-train", "transfer", "metric", "verdict", "recipe")
    return [Column(title, gap=2 * (i > 0), left=title in words) for i, title in enumerate(header)]


def _block(title: str, items: list[prose.Item], grid: Sequence[str] = ()) -> str:
    return "\n".join([terminal.block("", title, [], items), *[""] * bool(grid), *grid])
