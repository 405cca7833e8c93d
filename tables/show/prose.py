"""What is said in words beneath a table, the same for every format: items of a mark and a text."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from resim_bench.experiments import how_to_get, released
from tables import claims, studies
from tables.collect import HELD, JUDGED
from tables.compare import ABOVE, BELOW, COMPARED, DEVIATES, NO_CHECKPOINT
from tables.paper import Row, Table, load_paper, load_statements, load_tables
from tables.quantities import QUANTITIES
from tables.show import layout

Item = tuple[str, str]
DEVIATIONS_NAMED = 4


def legend(paper: str) -> str:
    """How a paper's tables are read."""
    noise = load_paper(paper).noise
    bounds = {
        data: next(value for metric, value in of["bound"].items() if layout.is_ap(metric)) for data, of in noise.items()
    }
    others = "".join(f" ({data.upper()} ±{b}, the graver of box and mask)" for data, b in [*bounds.items()][1:])
    first = next(iter(noise))
    return (
        "In per cent; ours is the mean ± the spread over pre-trainings or, of one, over its transfers. A verdict is "
        f"that of AP: `match` when the difference to the paper lies within ±{bounds[first]}{others} with 95 % "
        "confidence, `below` or `above` when outside, else `inconclusive`. With one pre-training its own scatter is "
        f"not in the confidence: the spread, never taken below {noise[first]['std']['AP']} for AP, is that of "
        "transfers alone."
    )


def beneath(tables: Sequence[Table], frame: pd.DataFrame, details: bool) -> list[Item]:
    """Status, remarks and footnotes of tables that stand side by side; with `details` what stands behind each row."""
    heads = pd.concat([layout.headline(frame[frame.table == table.id]) for table in tables])
    items = [
        ("", _status(tables, heads)),
        *_editions(tables),
        *_protocols(tables),
        *_remarks(tables, frame, heads, None if details else DEVIATIONS_NAMED),
    ]
    marks = layout.footnotes(tables)
    general = dict.fromkeys(text for table in tables for text in table.notes.values() if text not in marks)
    items += [(f"[{number}]", text) for text, number in marks.items()] + [("•", text) for text in general]
    items += [item for table in tables for item in on_study(table, frame)]
    if details:
        items += [item for table in tables for item in _details(table, frame[frame.table == table.id], len(tables) > 1)]
    return items + [("", table.closing) for table in tables if table.closing]


def _status(tables: Sequence[Table], heads: pd.DataFrame) -> str:
    """One sentence: how much of the table stands on runs, and the commands that fill the rest."""
    reports = tables[0].reports
    counted = heads[heads.reported.notna()] if reports else heads
    counts = Counter(counted.verdict)
    ran = int((counted.trials > 0).sum())
    if reports:
        sentence = f"{sum(counts[verdict] for verdict in COMPARED)} of {len(counted)} rows verified"
        found = [f"{counts[verdict]} {verdict}" for verdict in COMPARED if counts[verdict]]
    else:
        sentence, found = f"{ran} of {len(counted)} rows have run", []
    if found:
        sentence += f" ({', '.join(found)})"
    if counts[NO_CHECKPOINT]:
        sentence += f"; {counts[NO_CHECKPOINT]} without a public checkpoint"
    if counts[DEVIATES]:
        one = counts[DEVIATES] == 1
        sentence += f"; {counts[DEVIATES]} {'deviates' if one else 'deviate'} from the protocol"
        sentence += f" and {'is' if one else 'are'} not compared with the paper" if reports else ""
    missing = [
        (table, table.rows[line.row])
        for table in tables
        for line in heads.loc[(heads.table == table.id) & (heads.trials == 0), ["row", "pretrain"]].itertuples()
        if line.pretrain
    ]
    if missing:
        sentence += f"; run {' then '.join(commands(missing))}"
    return sentence + "."


def _editions(tables: Sequence[Table]) -> list[Item]:
    """Whose the AP of an earlier edition is."""
    editions = [load_tables()[table.earlier] for table in tables if table.earlier]
    return [("", f"AP before is of the {edition.short} (`resim-bench tables {edition.id}`).") for edition in editions]


def commands(missing: Iterable[tuple[Table, Row]]) -> list[str]:
    """The steps that fill these rows, each in backticks."""
    missing = list(missing)
    own = dict.fromkeys(step for table, _ in missing for step in table.run)
    if own:
        return [f"`{step}`" for step in own]
    transfers = [f"`make transfer-{transfer}`" for transfer in dict.fromkeys(row.transfer for _, row in missing)]
    return how_to_get(row.pretrain for _, row in missing) + transfers


def _protocols(tables: Sequence[Table]) -> list[Item]:
    """Which numbers were measured under another protocol than the table's one, and what that is worth."""
    others: dict[str, list[str]] = defaultdict(list)
    unknown, apart = [], [0.0]
    for row in tables[0].rows:  # those beside it have the same
        if row.protocol == "other":
            others[row.transfer].append(row.name)
        unknown += [row.name] * (row.protocol == "unknown")
        apart += [abs(row.elsewhere[metric] - row.reported[metric]) for metric in row.elsewhere if layout.is_ap(metric)]
    if not others and not unknown:
        return []
    sentences = []
    if others:
        under = "; ".join(f"{', '.join(names)} under {transfer}" for transfer, names in others.items())
        sentences.append(f"Measured under another protocol, and compared under it: {under}.")
    if unknown:
        sentences.append(f"Our sources do not say under which: {', '.join(unknown)}.")
    if tables[0].further:
        sentences.append(
            f"What others published under {tables[0].one} stands behind: of one method it is up to {max(apart):.0f} AP "
            "from the paper's number, other trainings of the weights included, more than what the paper claims."
        )
    return [("•", " ".join(sentences))]


def _remarks(tables: Sequence[Table], frame: pd.DataFrame, heads: pd.DataFrame, named: int | None) -> list[Item]:
    """What the verdict of a row leaves out: how it deviates, and another metric that is below or above."""
    by_id = {table.id: table for table in tables}
    several = len(tables) > 1
    said = ["table", "row", "name", "heading", "verdict", "held", "deviations"]  # few: a line is made column by column
    frame, heads = frame[said], heads[said]
    items = deviating(heads, lambda line: _name(line, by_id, several), named)
    held = defaultdict(list)
    for line in heads[heads.verdict.isin(COMPARED)].itertuples():
        if line.held:
            held[line.held].append(_name(line, by_id, several))
    for images, names in held.items():
        number = " or ".join(map(str, images))
        items.append(("•", f"{', '.join(names)}: {number} images per process, padded together; originally {HELD}."))
    verdicts = dict(zip(zip(heads.table, heads.row, strict=True), heads.verdict, strict=True))
    for line in frame[frame.verdict.isin([BELOW, ABOVE])].itertuples():
        if line.verdict != verdicts[line.table, line.row]:
            items.append(("•", f"{_name(line, by_id, several)}: {line.heading} is {line.verdict}."))
    return items


def deviating(heads: pd.DataFrame, name: Callable, named: int | None = DEVIATIONS_NAMED) -> list[Item]:
    """How rows deviate; `name` makes a row's name of its line, of each row `named` settings are named (None: all)."""
    alike = defaultdict(list)  # rows of one short run mostly deviate alike: they share an item
    for line in heads[heads.verdict == DEVIATES].itertuples():
        alike[line.deviations].append(name(line))
    items = []
    for deviations, names in alike.items():
        shown = deviations[:named]
        rest = f"; and {len(deviations) - len(shown)} more" if len(deviations) > len(shown) else ""
        verb = "deviates" if len(names) == 1 else "deviate"
        items.append(("•", f"{', '.join(names)} {verb}: {'; '.join(shown)}{rest}."))
    return items


def _name(line, tables: dict[str, Table], several: bool) -> str:
    return line.name + (f" ({tables[line.table].short})" if several else "")


class Verified(NamedTuple):
    """How many of the papers' numbers are verified, how many whole rows, what was found, and what the others are."""

    numbers: str
    rows: str
    found: str
    others: list[str]


def on_numbers(frame: pd.DataFrame) -> Verified:
    """The clauses of a sentence on all numbers of the papers."""
    numbers = frame[frame.reported.notna()]
    verified = numbers.verdict.isin(COMPARED)
    tables = load_tables()
    printed = [numbers.table.map(lambda id: tables[id].beside or id), numbers.row]  # side by side is one printed row
    rows = verified.groupby(printed).all()
    counts = Counter(numbers.verdict)
    others = [f"{counts[DEVIATES]} deviate and are not compared"] * bool(counts[DEVIATES])
    others += [f"{counts[NO_CHECKPOINT]} have no public checkpoint"] * bool(counts[NO_CHECKPOINT])
    return Verified(
        f"{verified.sum()} of {len(numbers)} numbers verified",
        f"{rows.sum()} of {len(rows)} rows",
        ", ".join(f"{counts[verdict]} {verdict}" for verdict in COMPARED if counts[verdict]),
        others,
    )


# ---------------------------------------------------------------- what stands behind each row


def _details(table: Table, frame: pd.DataFrame, several: bool) -> list[Item]:
    heads = layout.headline(frame)
    titled = f"{table.short}: " if several else ""
    items = [("•", f"{titled}The paper's numbers are from {table.source}.")] if table.reports else []
    for number, row in enumerate(table.rows):
        facts = behind(table, row, heads.loc[number])
        if "Run" in facts:
            sentences = [f"{facts.pop('Run')}, on {facts.pop('Device')}, commit {facts.pop('Commit')}"]
            if "Difference" in facts:
                sentences[0] += f"; {table.heading(heads.loc[number].metric)} {facts.pop('Difference')}"
        else:
            sentences = [facts.pop("To run")]
        sentences += [facts.pop("Source")] if "Source" in facts else []
        sentences += [f"{about} {fact}" for about, fact in facts.items()]
        beside = f" ({table.short})" if several else ""
        items.append(("•", f"{row.name}{beside}: {'. '.join(sentences)}."))
    return items


def behind(table: Table, row: Row, line) -> dict[str, str]:
    """What stands behind a number of a row, a fact per name, without a full stop.

    Args:
        line: of the frame, of that row.
    """
    facts = _run(row, line) if line.trials else {"To run": _what_is_missing(table, row)}
    if row.source:
        facts["Source"] = f"{row.source[0].upper()}{row.source[1:]}"
    if row.copied_from:
        facts["Copied from"] = row.copied_from
    if row.protocol:
        of = f"{row.protocol} as {table.one}" if row.protocol == "same" and table.one else row.protocol
        facts["Protocol"] = f"{of}, {row.evidence} ({row.witness})"
    if row.recipe:
        facts["Recipe"] = row.recipe + (f": {row.why}" if row.why else "")
    return facts


def _run(row: Row, line) -> dict[str, str]:
    trials = layout.counted(line.trials, "trial")
    theirs = line.ran.startswith("given-")
    weights = "the released weights" if theirs else layout.counted(line.pretrainings, "pre-training")
    facts = {"Run": f"{line.ran} under {row.transfer}, {trials} of {weights}"}
    facts |= {"Device": line.devices, "Commit": line.commits}
    if line.verdict in COMPARED:
        low, difference, high = (layout.one_decimal(v, signed=True) for v in (line.low, line.difference, line.high))
        facts["Difference"] = f"{difference} to the paper, 95 % {low} … {high}"
    return facts


def _what_is_missing(table: Table, row: Row) -> str:
    if row.unavailable:
        return row.unavailable
    if table.run:
        return f"nothing has run: {' then '.join(commands([(table, row)]))}"
    steps = [_importing(row.pretrain)] if row.pretrain.startswith("given-") else commands([(table, row)])[:1]
    either = f" or, with the released weights, {_importing(row.released)}" if row.released else ""
    return f"nothing has run: {steps[0]}{either}, then `make transfer-{row.transfer}`"


def _importing(id: str) -> str:
    source = released().get(id, {}).get("url", "where its authors publish it")
    return f"`resim-bench import FILE --as {id}` (FILE: {source})"


# ---------------------------------------------------------------- the claims


def on_study(table: Table, frame: pd.DataFrame) -> list[Item]:
    """What a study's records say of its claims, one item each; how far it is while seeds are missing."""
    study = studies.study_of(table.id)
    ran = studies.seeds_run(study, frame) if study else []
    if not study or not ran or not study.claims:
        return []
    if len(ran) < len(study.seeds):
        have = "has" if len(ran) == 1 else "have"
        return [("", f"{len(ran)} of the study's {len(study.seeds)} seeds {have} run: it is judged when all have.")]
    tested = "Claims are about differences within seeds, shown with their 95 % intervals: paired t-tests, of which the "
    tested += "secondary ones share 5 % (Holm)."
    items = [("", f"All {len(ran)} seeds of the study have run. {tested}")]
    for claim, found in itertools.groupby(frame.attrs[JUDGED][study.id], key=lambda judged: judged.claim):
        outcomes = "; ".join(outcome(judged, table) for judged in found)
        text = f"{claim.text}. {outcomes[0].upper()}{outcomes[1:]}."
        items.append(("•", f"{'Primary' if claim.primary else 'Secondary'}: {text}"))
    return items


def outcome(judged: studies.Judged, table: Table) -> str:
    """What a study found of a claim at one metric, with its numbers."""
    return f"{of_metric(judged, table)} {judged.verdict}: {layout.difference(judged.found)}, {of_test(judged)}"


def of_test(judged: studies.Judged) -> str:
    """What stands behind a difference: how likely it is by chance, of how many seeds, and what pairing bought."""
    r = layout.ABSENT if math.isnan(judged.correlation) else f"{judged.correlation:.2f}".replace("-", "−")
    p = layout.ABSENT if math.isnan(judged.found.p) else f"{judged.found.p:.2g}"
    return f"p {'< 0.0001' if judged.found.p < 0.0001 else p}, n {judged.found.n}, r {r}"


def of_metric(judged: studies.Judged, table: Table) -> str:
    """What a claim was judged by, as it is printed."""
    return judged.metric if judged.metric in QUANTITIES else table.heading(judged.metric)


def on_claims(frame: pd.DataFrame, *sides: str) -> list[Item]:
    """What the summary says in words and how it stands in the numbers of these sides, `reported` or `ours`.

    One item per claim; one without any number to compare is left out.
    """
    tables = load_tables()
    items = []
    for claim in load_statements():
        found = {side: claims.check(frame, claim, side) for side in sides}
        sentences = [_on_claim(side, compared, tables) for side, compared in found.items() if compared]
        items += [("•", f"{claim.text}. {' '.join(sentences)}")] if sentences else []
    return items


def _on_claim(side: str, found: list[claims.Compared], tables: dict[str, Table]) -> str:
    counts = Counter(one.outcome for one in found)
    text = f"{'In ours' if side == 'ours' else 'In the paper'}: {counts[claims.HOLDS]} of {len(found)} comparisons hold"
    for outcome in (claims.TIE, claims.FAILS):
        where: dict = defaultdict(list)
        for one in found:
            if one.outcome == outcome:
                where[one.above, one.below, one.table].append(tables[one.table].heading(one.metric))
        places = [f"{high} / {low}, {', '.join(metrics)} ({table})" for (high, low, table), metrics in where.items()]
        text += f"; {outcome}: {'; '.join(places)}" if places else ""
    return text + "."
