"""What readings are worth, as a table; and one backbone's beside those of the known ones."""

import math
import statistics
from collections.abc import Sequence

import pandas as pd

from tables.collect import deviations_of
from tables.readings import images_of, points, worth
from tables.show import terminal
from tables.show.everything import named
from tables.show.layout import ABSENT, counted, one_decimal
from tables.show.terminal import Column
from tables.statistics import FEWEST, Estimate, line

LEGEND = (
    "r over seeds: how reading and AP go together among the seeds of a method. Off by: the mean absolute error of the "
    "AP that a line through all other methods says of one that was left out; mean off by: of the AP that is their mean"
    "{}. ± is the standard error over seeds (jackknife), for these methods; – is what takes three methods, or more "
    "seeds."
)
NOTHING = (
    "No backbone has readings and frozen AP: `resim-bench judge ID` reads one, and a transfer such as mini-voc-frozen "
    "tests it."
)


def of_worth(frame: pd.DataFrame) -> str:
    """The frame of `tables.readings` as text: a block per transfer, a line per reading."""
    lines = worth(frame)
    if not len(lines):
        return terminal.item("", NOTHING) + "\n"
    titles = ["reading", "r over seeds", "off by", "mean off by", "gain"]
    blocks = []
    for (id, _, transfer), part in lines.groupby(["readings", "images", "transfer"], sort=False):
        rows: list[terminal.GridRow] = [
            [
                one.reading,
                _estimate(one.correlation, 2),
                _estimate(one.error),
                _estimate(one.by_mean),
                _estimate(one.gain, sign="+"),
            ]
            for one in part.itertuples()
        ]
        counts = f"{counted(part.backbones.iloc[0], 'backbone')} of {counted(part.methods.iloc[0], 'method')}"
        fewest, most = part.seeds.iloc[0]
        counts += f", {fewest} to {most} each" if fewest < most else ""
        title = f"What {id} say of the AP of {transfer}: {counts}"
        blocks.append(terminal.block("", title, terminal.columned(_columns(titles), rows), []))
    return "\n\n".join([*blocks, terminal.item("", LEGEND.format("; gain: the difference"))]) + "\n"


def beside(record: dict, frame: pd.DataFrame) -> str:
    """A record of readings beside those of the frame of `tables.readings` that can be compared with it, best first.

    What each reading says that the AP of a frozen transfer will be is a line through all that are known, and under it
    is what the reading was worth among these.
    """
    id, own = record["pretrain"]["id"], record["metrics"]
    seed = record["pretrain"]["seed"]
    frame = frame[(frame.images == images_of(record)) & ~((frame.method == id) & (frame.seed == seed))]
    transfers = [name for name in dict.fromkeys(frame.transfer) if name]
    first = next(iter(own))
    rows = {"→ this one": (own[first], [one_decimal(own[name]) for name in own] + [""] * (1 + len(transfers)))}
    for method, part in frame.groupby("method", sort=False):
        once = part.drop_duplicates("seed").found
        cells = [_mean([found[name] for found in once]) for name in own]
        aps = [_mean([*part[part.transfer == name].AP]) for name in transfers]
        rows[str(method)] = statistics.fmean(found[first] for found in once), [*cells, str(len(once)), *aps]
    grid: list[terminal.GridRow] = [
        [name, *cells] for name, (_, cells) in sorted(rows.items(), key=lambda row: -row[1][0])
    ]
    lines = worth(frame)
    for transfer in transfers:
        of_transfer = frame[frame.transfer == transfer]
        found = lines[lines.transfer == transfer].set_index("reading").loc[[*own]]
        said = [_predicted(of_transfer, name, own[name]) for name in own]
        blank = [""] * (1 + len(transfers))
        worths = {
            "  AP that it says": [one_decimal(value) for value in said],
            "  off by": [_estimate(one) for one in found.error],
            "  mean off by": [_estimate(one) for one in found.by_mean],
            "  r over seeds": [_estimate(one, 2) for one in found.correlation],
        }
        shown = [[name, *cells, *blank] for name, cells in worths.items() if {*cells} != {ABSENT}]
        grid += [transfer, *shown] if shown else []
    titles = ["backbone", *own, "seeds", *transfers]
    images = record["transfer"]["data"]["images"]
    title = f"{id}, seed {seed}, by {record['transfer']['id']} on {images} images, in per cent"
    deviations = deviations_of([record])
    items = [("", f"It deviates in {named(deviations)}.")] if deviations else []
    if not transfers:
        text = (
            "What a reading is worth is not known here: no other backbone was read on these images and has frozen AP."
        )
        items.append(("", text))
    elif lines.methods.max() < FEWEST:
        items.append(("", "Too few methods to say what a reading is worth across them: that takes three."))
    else:
        items.append(("", LEGEND.format("")))
    return terminal.block("", title, terminal.columned(_columns(titles), grid), items) + "\n"


def _predicted(frame: pd.DataFrame, reading: str, value: float) -> float:
    known = points(frame, reading)
    if len(known) < FEWEST:
        return math.nan
    pairs = [pair for of_method in known.values() for pair in of_method.values()]
    slope, intercept = line([x for x, _ in pairs], [y for _, y in pairs])
    return slope * value + intercept


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ABSENT
    return one_decimal(statistics.fmean(values)) + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _estimate(one: Estimate, digits: int = 1, sign: str = "") -> str:
    if math.isnan(one.value):
        return ABSENT
    value = f"{round(one.value, digits) + 0.0:{sign}.{digits}f}".replace("-", "−")
    return value if math.isnan(one.error) else f"{value} ± {one.error:.{digits}f}"


def _columns(titles: Sequence[str]) -> list[Column]:
    return [Column(title, gap=2 * (i > 0), left=i == 0) for i, title in enumerate(titles)]
