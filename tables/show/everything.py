"""`tables --all`: the leaderboard of what was run here."""

import math

import pandas as pd

from tables.show import terminal
from tables.show.layout import counted, one_decimal
from tables.show.terminal import Column

NAMED = 3  # deviations of a line


def everything(frame: pd.DataFrame) -> str:
    """The frame of `tables.leaderboard` as text, a block per protocol."""
    if not len(frame):
        return "Nothing has run: `resim-bench mini` is a first experiment.\n"
    blocks = []
    for (transfer, _), lines in frame.groupby(["transfer", "data"], sort=False):
        first = lines.iloc[0]
        titles = ["", "pre-train", first.metric, *first.others, "trials", "deviates in"]
        columns = [Column(title, gap=2 * (i > 0), left=i in (1, len(titles) - 1)) for i, title in enumerate(titles)]
        rows: list[terminal.GridRow] = [
            [
                str(line.rank) if line.rank else "–",
                line.pretrain,
                one_decimal(line.mean) + ("" if math.isnan(line.std) else f" ± {line.std:.1f}"),
                *(one_decimal(line.others.get(name, math.nan)) for name in first.others),
                str(line.trials),
                named(line.deviations),
            ]
            for line in lines.itertuples()
        ]
        blocks.append(terminal.block("", str(transfer), terminal.columned(columns, rows), []))
    legend = terminal.item(
        "",
        f"{counted(len(frame), 'experiment')} by protocol and data, best first, in per cent: the mean ± the spread "
        "over pre-trainings or, of one, over its transfers. What deviates has no rank; a rank is no verdict.",
    )
    return "\n\n\n".join([*blocks, legend]) + "\n"


def named(deviations: tuple[str, ...]) -> str:
    """The first deviations, and how many more there are."""
    more = f"; and {len(deviations) - NAMED} more" if len(deviations) > NAMED else ""
    return "; ".join(deviations[:NAMED]) + more
