"""Pictures: a study, AP over length, what errors cost, and readings: of monitored runs as curves, and against AP."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from resim_bench import files
from resim_bench.errors import UserError
from tables.paper import load_tables
from tables.show import layout
from tables.show.layout import plain
from tables.studies import Study

STYLE: Any = {
    "svg.hashsalt": "resim-bench",  # the same file each time
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PATTERNS = ("", "//", "..", "xx", "--", "oo", "\\\\", "++", "**")


def draw_study(study: Study, frame: pd.DataFrame, file: Path) -> None:
    """AP of the study's rows, one panel per group and one column per row, written as SVG or PNG by the file's ending.

    Args:
        frame: made by `tables.collect`.

    Raises:
        UserError: nothing of the study has run.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    table = load_tables()[study.table]
    metric = layout.first_metric(table)
    lines = frame[(frame.table == study.table) & (frame.metric == metric) & (frame.trials > 0)]
    values = [
        (line.group, plain(line.label), {seed: value for seed, value in line.by_seed.items() if seed in study.seeds})
        for line in lines.itertuples()
    ]
    if not any(of_row for *_, of_row in values):
        raise UserError(f"no seed of the study {study.id} has run: run `resim-bench study {study.id}` first")
    groups = list(dict.fromkeys(row.group for row in table.rows))
    with mpl.rc_context(STYLE):
        rows = {group: {label: seeds for of_group, label, seeds in values if of_group == group} for group in groups}
        widths = [max(4.0, 1.1 * len(of_group)) for of_group in rows.values()]  # labels stand beside each other
        figure = Figure(figsize=(sum(widths), 3.6), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False, width_ratios=widths)[0]
        for panel, (group, of_group) in zip(panels, rows.items(), strict=True):
            _panel(panel, of_group)
            panel.set_title(group)
        panels[0].set_ylabel(f"{plain(table.heading(metric))}, per cent")
        _save(figure, file)


LENGTHS = "mini-length"  # the study


def draw_lengths(frame: pd.DataFrame, seconds: Mapping[str, float], file: Path) -> None:
    """AP of the study's rows over epochs and over minutes of pre-training, a line per method and a dot per seed.

    A method's minutes are its epochs by the median time of one: its steps are the same at every length.

    Args:
        frame: made by `tables.collect`.
        seconds: of pre-training, by its id; of each method those of one length will do.

    Raises:
        UserError: nothing of the study has run, or of a method there are no seconds.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator

    chosen = (frame.table == LENGTHS) & (frame.metric == "AP") & (frame.trials > 0)
    methods = dict(iter(frame[chosen].groupby("label", sort=False)))
    if not methods:
        raise UserError(f"no row of {LENGTHS} has run: run `resim-bench study {LENGTHS}` first")
    paces = {
        method: [seconds[line.pretrain] / line.epochs for line in lines.itertuples() if line.pretrain in seconds]
        for method, lines in methods.items()
    }
    lacking = [method for method, found in paces.items() if not found]
    if lacking:
        raise UserError(
            f"no pre-training of {', '.join(lacking)} has its log here, which says how long it took: name the work "
            "directory of one by --work-dir"
        )
    lengths = sorted({epochs for lines in methods.values() for epochs in lines.epochs})
    units = {
        "epochs": (dict.fromkeys(methods, 1.0), FixedLocator(lengths)),
        "minutes": (
            {method: statistics.median(found) / 60 for method, found in paces.items()},
            LogLocator(subs=(1, 2, 5)),
        ),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        panels = figure.subplots(1, len(units), sharey=True, squeeze=False)[0]
        for panel, (unit, (scales, ticks)) in zip(panels, units.items(), strict=True):
            for number, (method, lines) in enumerate(methods.items()):
                _length(panel, method, lines, scales[method], f"C{number}", MARKS[number])
            panel.set_xscale("log")
            panel.minorticks_off()
            panel.xaxis.set_major_locator(ticks)
            panel.xaxis.set_major_formatter("{x:g}")
            panel.set_xlabel(f"{unit} of pre-training")
        panels[0].set_ylabel("AP with a frozen backbone, per cent")
        figure.legend(handles=panels[0].get_lines(), loc="outside lower center", ncols=len(methods), frameon=False)
        _save(figure, file)


def _length(panel, method: str, lines: pd.DataFrame, scale: float, colour: str, mark: str) -> None:
    lines = lines.sort_values("epochs")
    panel.plot(scale * lines.epochs, lines.ours, color=colour, marker=mark, markersize=4, label=method)
    for line in lines.itertuples():
        found = [*line.by_seed.values()]
        panel.scatter([scale * line.epochs] * len(found), found, color=colour, s=14, alpha=0.5, linewidth=0)


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str], file: Path) -> None:
    """What runs read of themselves, a panel per name and a line per run, over iterations.

    Args:
        runs: by name the readings of a run in order, each with its `iter`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        size = (2.8 * len(names), 3.0 + 0.2 * -(-len(runs) // 4))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for panel, name in zip(panels, names, strict=True):
            for number, (run, lines) in enumerate(runs.items()):
                points = [(line["iter"], line[name]) for line in lines if name in line]
                style = DASHES[number // 10 % len(DASHES)]  # behind ten colours
                panel.plot(*zip(*points, strict=True), style, label=run)
            panel.set_title(name)
            panel.set_xlabel("iteration")
        lines = panels[0].get_lines()
        figure.legend(handles=lines, loc="outside lower center", ncols=min(len(lines), 4), frameon=False)
        _save(figure, file)


DASHES = "-", "--", ":", "-."
MARKS = "osD^v<>pPX*h"  # with ten colours: 60 methods, told apart in grey, too


def draw_readings(frame: pd.DataFrame, file: Path) -> None:
    """AP against each reading, a row per transfer, a panel per reading, a mark per method and a dot per backbone.

    Args:
        frame: made by `tables.readings`.

    Raises:
        UserError: no backbone has readings and frozen AP.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    groups = [
        (id, transfer, part)
        for (id, _, transfer), part in frame[frame.transfer != ""].groupby(
            ["readings", "images", "transfer"], sort=False
        )
    ]
    if not groups:
        raise UserError("no backbone here has readings and frozen AP: run `resim-bench judge ID` and a transfer first")
    names = list(groups[0][-1].found.iloc[0])
    methods = list(dict.fromkeys(method for *_, part in groups for method in part.method))
    marks = {method: (MARKS[i % len(MARKS)], f"C{i % 10}") for i, method in enumerate(methods)}
    legend_rows = -(-len(methods) // 4)
    with mpl.rc_context(STYLE):
        size = (2.8 * len(names), 2.8 * len(groups) + 0.25 * legend_rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(groups), len(names), sharey="row", squeeze=False)
        for row, (id, transfer, part) in zip(panels, groups, strict=True):
            for panel, name in zip(row, names, strict=True):
                for method, of_method in part.groupby("method", sort=False):
                    mark, colour = marks[str(method)]
                    values = [found[name] for found in of_method.found]
                    panel.scatter(values, of_method.AP, marker=mark, color=colour, s=26, linewidth=0, label=method)
                panel.set_xlabel(f"{name}, per cent")
            row[0].set_title(id, loc="left")
            row[0].set_ylabel(f"{transfer}\nAP, per cent")
        handles: dict[str, Any] = {}
        for panel in panels[:, 0]:
            handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(handles=[*handles.values()], loc="outside lower center", ncols=4, frameon=False)
        _save(figure, file)


def draw_bars(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], names: Sequence[str], unit: str, file: Path
) -> None:
    """Bars grouped by name, a panel above another; a row's bars have a colour and a pattern of their own.

    Args:
        panels: by title and by row, mean and spread of each name; a spread of NaN is none.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(row for of_panel in panels.values() for row in of_panel))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 * len(names), 2.6 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for panel, (title, of_panel) in zip(axes, panels.items(), strict=True):
            width = 0.8 / len(of_panel)
            for beside, (row, values) in enumerate(of_panel.items()):
                number = rows.index(row)
                places = [place + width * (beside + 0.5) - 0.4 for place in range(len(names))]
                means, spreads = zip(*values, strict=True)
                panel.bar(
                    places,
                    means,
                    width,
                    yerr=spreads,
                    label=row,
                    color=f"C{number}",
                    hatch=PATTERNS[number % len(PATTERNS)],
                    edgecolor="white",
                    error_kw={"elinewidth": 0.8},
                )
            panel.set_title(title, loc="left")
            panel.set_ylabel(unit)
            panel.set_xticks(range(len(names)), names)
        handles = {
            label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
        _save(figure, file)


def _save(figure, file: Path) -> None:
    kind = file.suffix.removeprefix(".")
    with files.replacing(file) as stream:
        figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None, dpi=120)


def _panel(panel, values: dict[str, dict[int, float]]) -> None:
    for seed in sorted({seed for of_row in values.values() for seed in of_row}):
        heights = [of_row.get(seed, float("nan")) for of_row in values.values()]
        panel.plot(heights, color="0.75", linewidth=0.8, zorder=1)
        panel.scatter(range(len(heights)), heights, color="C0", s=18, alpha=0.8, linewidth=0, zorder=2)
    for place, of_row in enumerate(values.values()):
        if of_row:
            panel.hlines(sum(of_row.values()) / len(of_row), place - 0.2, place + 0.2, color="C3", zorder=3)
    panel.set_xticks(range(len(values)), [*values])
    panel.set_xlim(-0.5, len(values) - 0.5)
