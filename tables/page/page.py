"""One HTML file that shows what holds, why, and how it went: the frame of the tables, and what runs wrote.

It asks nothing of anybody: style and script stand in it, and its policy lets a browser load nothing else. It is whole
without its script, which filters, copies and saves.
"""

import base64
import functools
import hashlib
import itertools
import math
import numbers
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from resim_bench import files
from resim_bench.correspondence import Correspondence
from resim_bench.errors import UserError
from resim_bench.harness import trace
from resim_bench.record import ERRORS
from tables import studies
from tables.collect import JUDGED
from tables.compare import ABOVE, BELOW, COMPARED, DEVIATES, INCONCLUSIVE, MATCH, NO_CHECKPOINT, UNVERIFIED
from tables.page import charts, pictures, places
from tables.paper import Table, load_paper, load_tables
from tables.show import errors, layout, prose, report

HERE = Path(__file__).parent
STYLES, SCRIPTS = ("style.css", "pictures.css", "places.css"), ("page.js", "places.js")
VERDICTS = (*COMPARED, DEVIATES, UNVERIFIED, NO_CHECKPOINT)
KEY = {  # differences that a verdict stands for, in bounds
    MATCH: charts.interval((0.2, -0.4, 0.8), 2.0, 1.0, MATCH),
    INCONCLUSIVE: charts.interval((0.6, -0.2, 1.4), 2.0, 1.0, INCONCLUSIVE),
    BELOW: charts.interval((-1.5, -1.8, -1.2), 2.0, 1.0, BELOW),
    ABOVE: charts.interval((1.5, 1.2, 1.8), 2.0, 1.0, ABOVE),
}
Points = list[tuple[float, float]]
LONGEST = 2000  # characters of a text that a record may have made long
RUNS = 24  # with curves, those that last wrote something
ABOUT_STEPS = ("iter", "step", "lr", "eta", "time", "data_time", "images/s", "memory")  # what is no loss or accuracy


def write(
    frame: pd.DataFrame,
    runs: Sequence[trace.Run],
    commit: str,
    made: datetime,
    file: Path,
    compared: pictures.Compared = (),
    found: Correspondence | None = None,
) -> None:
    """Write the page; the arguments are those of `page`.

    Raises:
        UserError: the file is not called NAME.html.
    """
    check_name(file)
    with files.replacing(file) as stream:
        stream.write(page(frame, runs, commit, made, compared, found).encode())


def check_name(file: Path) -> None:
    """Refuse a name that no page has, before anything is computed for it.

    Raises:
        UserError: the file is not called NAME.html.
    """
    if file.suffix != ".html":
        raise UserError(f"{file} does not end in .html: name the file so")


def page(
    frame: pd.DataFrame,
    runs: Sequence[trace.Run],
    commit: str,
    made: datetime,
    compared: pictures.Compared = (),
    found: Correspondence | None = None,
) -> str:
    """The page.

    Args:
        frame: made by `tables.collect`.
        runs: of a work directory, the one that last wrote something first.
        commit: of this repository; made: when.
        compared: what rows made of the same test images, or why that cannot be shown, for `pictures.groups`.
        found: what backbones take for the same place, if any were asked.
    """
    seen = pictures.views(compared)
    tables = report.chosen(frame, None)
    papers = [table for table in tables if table.reports]
    of_studies = {study.table for study in studies.load_studies().values()}
    style, script = ("".join((HERE / name).read_text("utf-8") for name in names) for names in (STYLES, SCRIPTS))
    shown_places = places.shown(found) if found else {}
    shown = [_run(run) for run in runs[:RUNS]]
    numbers_of_papers = frame[frame.reported.notna()]
    counts = Counter(numbers_of_papers.verdict)
    data = {
        "made": made.isoformat(timespec="seconds"),
        "commit": commit,
        "frame": frame.drop(columns=["details", "detections"]).to_dict("records"),
        "claims": {id: [_judged(one) for one in found] for id, found in frame.attrs[JUDGED].items()},
        "places": shown_places.get("numbers", []),
        "pictures": [group["data"] for of_table in seen.values() for group in of_table if "data" in group],
        "runs": [{key: run[key] for key in ("room", "name", "state", "curves")} for run in shown],
    }
    return _template().render(
        style=Markup(style),
        script=Markup(script),
        digests={"style": _digest(style), "script": _digest(script)},
        verified=prose.on_numbers(frame),
        found=list(_found(frame)),
        commit=commit,
        made=made,
        verdicts=[(verdict, counts[verdict]) for verdict in VERDICTS],
        overview=[_overview(table, numbers_of_papers) for table in papers],
        papers=[_table(table, frame) for table in papers],
        ours=[_table(table, frame) for table in tables if not table.reports and table.id not in of_studies],
        key={"open": charts.interval((math.nan, math.nan, math.nan), 2.0, 1.0)} | KEY,
        sample=charts.sample,
        legend=prose.legend(papers[0].paper),
        statements=prose.on_claims(frame, "reported", "ours"),
        studies=[[_study(study, frame, editions) for study in editions] for editions in _editions()],
        errors=[_errors(table, frame) for table in errors.with_costs(frame)],
        no_errors=errors.nothing([]),
        errors_legend=errors.LEGEND,
        places=shown_places,
        pictures=seen,
        runs=shown,
        more_runs=Counter(run.state for run in runs[RUNS:]),
        data=_plain(data),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"inline": inline, "plain": layout.plain, "mark": mark}
    return environment.get_template("page.html")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _plain(value):
    """As JSON has it: NaN is null, keys are strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def inline(text: str) -> Markup:
    """Text whose `^x` is raised and whose `commands` are code; of a very long one the beginning."""
    more = f"… ({len(text):,} characters)" if len(text) > LONGEST else ""
    escaped = str(escape(text[:LONGEST] + more))
    raised = re.sub(r"\^(\w{1,3}\b|†)", r"<sup>\1</sup>", escaped)
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", raised))


def mark(verdict: str) -> str:
    """The name of a verdict's sign; of a study's `above MoCo-v2: holds` that of its outcome."""
    return verdict.rpartition(": ")[2].replace(" ", "-")


# ---------------------------------------------------------------- the first screen


def _found(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What our own studies found of their primary claims, each in its last edition that has been judged."""
    judged = frame.attrs[JUDGED]
    for editions in _editions():
        for study in [study for study in editions if judged.get(study.id)][-1:]:
            table = load_tables()[study.table]
            for one in judged[study.id]:
                if one.claim.primary:
                    outcome = prose.outcome(one, table)
                    of = {"table": table.id, "edition": table.short}
                    yield of | {"verdict": one.verdict, "claim": one.claim.text, "outcome": outcome}


def _overview(table: Table, lines: pd.DataFrame) -> dict[str, Any]:
    """A table's numbers as signs, by row."""
    of_table = lines[lines.table == table.id]
    verified = int(of_table.verdict.isin(COMPARED).sum())
    return {"table": table, "verified": verified, "verdicts": of_table.groupby("row").verdict.apply(list)}


# ---------------------------------------------------------------- tables


def _table(table: Table, frame: pd.DataFrame) -> dict[str, Any]:
    """A table: rows of cells, each with what stands behind it; what is said beneath; and the same to be copied."""
    part = frame[frame.table == table.id]
    by_place = {(line.row, line.metric): line for line in part.itertuples()}
    panel = report.panel([table], part)
    (table,) = panel.tables
    lines = {ours: iter([line for line in panel.lines if line.ours is ours]) for ours in (True, False)}
    ran = {line.row for line in part[part.trials > 0].itertuples()}
    rows = []
    for number, row in enumerate(table.rows):
        paper = next(lines[False]) if table.reports else None
        ours = next(lines[True]) if number in ran or not table.reports else None
        first = paper or ours
        last = ours or paper
        assert first is not None and last is not None  # for mypy: each row has a line
        cells = [
            _cell(table, by_place[number, metric], *(line and line.sides[0].numbers[place] for line in (paper, ours)))
            for place, metric in enumerate(table.metrics)
        ]
        rows.append(
            {
                "label": first.label,
                "window": row.window,
                "group": row.group,
                "verdict": last.sides[0].verdict,
                "trials": layout.counted(ours.sides[0].trials or 0, "trial") if ours else "",
                "cells": cells,
                "verdicts": "|".join(dict.fromkeys(cell["line"].verdict for cell in cells)),
                "further": _further(table, by_place, number, first.sides[0].further),
            }
        )
    copied = panel.with_legend(part)
    return {
        "id": table.id,
        "title": table.title,
        "reports": table.reports,
        "headings": [table.heading(metric) for metric in table.metrics],
        "further": table.further,
        "window": any(row.window for row in table.rows),
        "rows": rows,
        "items": panel.items,
        "copies": {form: report.typeset(copied, form) + "\n" for form in ("markdown", "latex")},
    }


def _cell(table: Table, line, paper: layout.Number | None, ours: layout.Number | None) -> dict[str, Any]:
    row, bound = table.rows[line.row], table.noise(line.metric).bound
    found = line.difference, line.low, line.high
    facts = {}
    if paper and not math.isnan(line.reported):
        facts["Paper"] = f"{paper.value} {f'({paper.delta} to {table.delta_to})' if paper.delta else ''}"
    if not math.isnan(line.elsewhere):
        facts["Elsewhere"] = f"{layout.one_decimal(line.elsewhere)} under {table.one}, {row.elsewhere_from}"
    if ours and line.trials:
        facts["Ours"] = f"{ours.value} {ours.spread} {f'({ours.delta} to {table.delta_to})' if ours.delta else ''}"
    behind = prose.behind(table, row, line)
    facts |= {about: behind[about] for about in ("Difference",) if about in behind} | behind
    return {
        "id": f"{table.id}.{line.row}.{line.metric}",
        "line": line,
        "paper": paper,
        "ours": ours,
        "gauge": "" if math.isnan(line.reported) else charts.interval(found, 2 * bound, bound, line.verdict),
        "bound": f"±{bound:.1f}",
        "title": f"{line.name}, {line.heading}",
        "facts": facts,
        "seeds": [(seed, layout.one_decimal(value)) for seed, value in sorted(line.by_seed.items())],
    }


def _further(table: Table, by_place: dict, number: int, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of `Table.further`; differences to other rows have their intervals."""
    metric = layout.first_metric(table)
    every = [test for (_, of), line in by_place.items() if of == metric for test in line.versus.values()]
    reach = max((max(abs(test.low), abs(test.high)) for test in every), default=1.0) or 1.0
    versus = by_place[number, metric].versus
    intervals = [charts.interval(versus[of][:3], reach) if of in versus else "" for of in table.differences]
    return [
        {"text": text, "interval": interval} for text, interval in itertools.zip_longest(texts, intervals, fillvalue="")
    ]


# ---------------------------------------------------------------- studies


def _editions() -> list[list[studies.Study]]:
    """Studies in the order of their tables, an earlier edition before the first whose table names its own."""
    tables = load_tables()
    known = sorted(studies.load_studies().values(), key=lambda study: list(tables).index(study.table))
    found = {study.id: [study] for study in known if not study.pinned}
    for earlier in (study for study in known if study.pinned):
        later = (id for id, (*_, last) in found.items() if tables[last.table].earlier == earlier.table)
        found.setdefault(next(later, earlier.id), []).insert(0, earlier)
    return [*found.values()]


def _study(study: studies.Study, frame: pd.DataFrame, editions: Sequence[studies.Study]) -> dict[str, Any]:
    table = load_tables()[study.table]
    metric = layout.first_metric(table)
    lines = frame[(frame.table == table.id) & (frame.metric == metric)]
    rows = [
        charts.Strip(
            line.group,
            line.label,
            {seed: value for seed, value in sorted(line.by_seed.items()) if seed in study.seeds},
            line.verdict == DEVIATES,
        )
        for line in lines.itertuples()
    ]
    beside = frame[frame.table.isin([one.table for one in editions]) & (frame.metric == metric)]
    reach = [value for line in beside.itertuples() for value in line.by_seed.values()]
    judged = frame.attrs[JUDGED].get(study.id, [])
    ends = [abs(end) for one in judged for end in (one.found.low, one.found.high) if not math.isnan(end)]
    most = max(ends, default=1.0) or 1.0
    label = f"{layout.plain(table.heading(metric))} of every seed, {table.title}: the table after it has the numbers"
    return {
        "id": study.id,
        "table": _table(table, frame),
        "exploratory": not study.claims,
        "edition": "an earlier edition, by the protocols of its day" if study.pinned else "",
        "plan": f"{layout.counted(len(study.seeds), 'seed')}, {study.first_seed} to {study.last_seed}",
        "ran": studies.seeds_run(study, frame),
        "heading": table.heading(metric),
        "chart": charts.strips(rows, label, reach) if any(row.values for row in rows) else "",
        "strips": rows,
        "seeds": list(study.seeds),
        "claims": [
            {
                "judged": one,
                "heading": prose.of_metric(one, table),
                "difference": layout.difference(one.found),
                "test": prose.of_test(one),
                "interval": charts.interval(one.found[:3], most),
            }
            for one in judged
        ],
    }


def _judged(one: studies.Judged) -> dict[str, Any]:
    return {"claim": one.claim.text, "primary": one.claim.primary, "metric": one.metric} | {
        "found": one.found,
        "correlation": one.correlation,
        "verdict": one.verdict,
    }


# ---------------------------------------------------------------- errors


def _errors(table: Table, frame: pd.DataFrame) -> dict[str, Any]:
    """What errors cost, a block per group, kind of AP and IoU; and what the method gains at each IoU."""
    lines = frame[(frame.table == table.id) & (frame.costed > 0)]
    blocks: dict[str, list[dict[str, Any]]] = {}
    for line in lines.itertuples():
        label = layout.within_group(line)
        for iou, costs in line.costs.items():
            block = blocks.setdefault(errors.heading(line, iou), [])
            block.append({"label": label, "means": [costs[name][0] for name in ERRORS], "trials": line.costed})
    for block in blocks.values():
        most = max(cost for row in block for cost in row["means"][1:])
        for row in block:
            bars = ["", *(charts.bar(cost, most) for cost in row["means"][1:])]
            row["cells"] = list(zip(map(layout.one_decimal, row["means"]), bars, strict=True))
    names = [" ".join((*errors.COLUMNS[name].over, errors.COLUMNS[name].title)) for name in ERRORS]
    return {"id": table.id, "title": table.title, "names": names, "blocks": blocks, "gains": _gains(table, frame)}


def _gains(table: Table, frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The method's AP less its baseline's at each IoU, a chart per group and kind of AP."""
    paper = load_paper(table.paper)
    lines = frame[(frame.table == table.id) & frame.metric.map(layout.is_ap) & (frame.verdict != DEVIATES)]
    by_place = {(line.row, line.metric): line.by_iou for line in lines.itertuples() if line.by_iou}
    found: dict[str, dict[str, Points]] = {}
    for line in lines.itertuples():
        base = by_place.get((table.number(paper.baseline, line.group), line.metric))
        if line.label.startswith(paper.method) and line.by_iou and base:
            title = ", ".join(filter(None, (line.group, line.heading)))
            gain = [(float(iou) / 100, mean - base[iou][0]) for iou, (mean, _) in line.by_iou.items() if iou in base]
            found.setdefault(title, {})[layout.within_group(line)] = gain
    label = f"gain of {paper.method} over {paper.baseline} at each IoU"
    return {
        title: {"names": list(series), "chart": charts.curves(series, f"{title}: {label}", "IoU", zero=True)}
        for title, series in found.items()
    }


# ---------------------------------------------------------------- runs


def _run(run: trace.Run) -> dict[str, Any]:
    """How far a run is, and its curves: losses, accuracies, and what its monitor read."""
    progress = trace.progress(run.folder)
    losses: dict[str, Points] = {}
    others: dict[str, Points] = {}
    for name in dict.fromkeys(name for line in progress for name in line if name not in ABOUT_STEPS):
        of_one = charts.thinned([(line["iter"], line[name]) for line in progress if name in line])
        (losses if name.startswith("loss") else others)[name] = of_one
    readings = trace.monitored(run.folder)
    read = {
        name: charts.thinned([(line["iter"], line[name]) for line in readings if name in line])
        for name in trace.SHOWN
        if not name.startswith("loss")
    }
    curves = {"loss": losses, "accuracy": others, "monitor": {name: of_one for name, of_one in read.items() if of_one}}
    last = progress[-1] if progress else {}
    left = str(timedelta(seconds=round(last.get("eta", 0)))) if run.state != trace.FINISHED and last else ""
    return {
        "room": run.room,
        "name": run.name,
        "state": run.state,
        "done": f"{last['iter']:,.0f}" if last else layout.ABSENT,
        "left": left,
        "said": datetime.fromtimestamp(run.said).astimezone() if run.said else None,
        "loss": f"{last['loss']:.3f}" if "loss" in last else layout.ABSENT,
        "speed": f"{last['images/s']:,.1f}" if "images/s" in last else layout.ABSENT,
        "curves": curves,
        "charts": {
            kind: {
                "legend": [
                    (name, charts.sample(i), f"{of_one[-1][1]:.3g}") for i, (name, of_one) in enumerate(of.items())
                ],
                "chart": charts.curves(of, f"{kind} of {run.name}", "iteration"),
            }
            for kind, of in curves.items()
            if any(math.isfinite(value) for of_one in of.values() for _, value in of_one)
        },
    }
