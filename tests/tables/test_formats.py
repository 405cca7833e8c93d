"""Markdown, LaTeX and CSV: the same values as in the terminal, and well-formed."""

import csv
import io
import math
import re
from collections import Counter

import pytest

import tables

NUMBER = re.compile(r"(?<![\w.])[+−]?\d+\.\d(?!\d)")
FORMS = ("terminal", "markdown", "latex")


@pytest.fixture
def frame(at_the_paper, make_record):
    """Most experiments once, some twice, one deviating, the windows not at all."""
    records = [one for one in at_the_paper(0.24) if "-w" not in one["pretrain"]["id"]]
    again = [
        one | {"transfer": one["transfer"] | {"seed": 1}, "metrics": {k: v - 1 for k, v in one["metrics"].items()}}
        for one in records[::3]
    ]
    records[2]["pretrain"]["deviations"] = {"epochs": [500, 1]}
    return tables.collect(records + again)


def grids(text, form):
    """The lines that hold numbers of a grid."""
    if form == "latex":
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        return [line.replace("$-$", "−") for line in lines]
    if form == "markdown":
        return [line for line in text.splitlines() if line.startswith("|")]
    parts = [part.split("\n\n")[0] for part in text.split("\n\n\n")]
    return [line for part in parts if not part.startswith("What the summary") for line in part.splitlines()[2:]]


def one_decimal(value, sign=""):
    return f"{round(value, 1) + 0.0:{sign}.1f}".replace("-", "−")


@pytest.mark.parametrize("form", FORMS)
def test_every_format_has_every_value_of_the_frame(frame, form):
    expected = Counter()
    for line in frame.itertuples():
        elsewhere = line.elsewhere if line.metric == "AP" else math.nan  # of one column
        for value, sign in ((line.reported, ""), (line.ours, ""), (line.std, ""), (elsewhere, "")):
            expected[one_decimal(value, sign)] += not math.isnan(value)
        for value in (line.reported_delta, line.delta):
            expected[one_decimal(value, "+")] += not math.isnan(value)
    text = tables.render(frame, form=form)
    found = Counter(number for line in grids(text, form) for number in NUMBER.findall(line))
    assert found == +expected
    assert found["−9.5"], "what the paper subtracts from Rotation's AP75"


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_rows_have_equally_many_cells(frame, form):
    text = tables.render(frame, form=form)
    tabulars = re.split(r"\n(?!\|)" if form == "markdown" else r"\\begin\{tabular\}", text)
    for tabular in tabulars:
        rows = grids(tabular, form)
        if form == "latex":
            rows = [row for row in rows if "multicolumn" not in row]
        assert len({row.count("|" if form == "markdown" else "&") for row in rows}) <= 1


def test_markdown(frame):
    text = tables.render(frame, ["in1k-voc", "coco-1x", "coco-2x"], form="markdown")
    lines = text.splitlines()
    assert lines[0] == "### PASCAL VOC object detection after IN-1k pre-training, full fine-tuning"
    assert lines[2:4] == [
        "| pre-train | AP | AP50 | AP75 | trials | verdict | voc-full |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    assert "| ReSim-FPN | **59.2** (+5.7) | 82.9 (+1.6) | 65.9 (+7.1) |  |  | – |" in lines
    assert "| 1×: AP<sup>bb</sup> | 1×: AP50<sup>bb</sup> |" in text
    assert "| ReSim-FPN<sup>T</sup> (400 ep) | **40.3** (+1.4) |" in text
    assert "| DenseCL<sup>†</sup> [" in text
    assert "^" not in text
    assert "\033" not in text


def test_latex(frame):
    text = tables.render(frame, form="latex")
    assert all(character.isascii() for character in text), "nothing that an old engine cannot read"
    assert r"ReSim-C4 [3] & 58.7 (+5.2) & \textbf{83.1} (+1.8) & \textbf{66.3} (+7.5) &  &  & -- \\" in text
    assert r"Rotation & 46.3 ($-$7.2) &" in text
    assert r"ReSim-FPN\textsuperscript{T} (400 ep) & \textbf{40.3} (+1.4)" in text
    assert r"DenseCL\textsuperscript{\dag{}} [1] [2]" in text
    assert r"AP50\textsuperscript{bb}" in text
    assert r"\multicolumn{8}{c}{1$\times$} & \multicolumn{8}{c}{2$\times$} \\" in text
    assert r"\cmidrule(lr){2-9}\cmidrule(lr){10-17}" in text
    for name in ("table*", "tabular", "minipage"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    assert text.count("{") == text.count("}")
    assert text.count("$") % 2 == 0
    assert re.search(r"(?<!\\)[%#_^]", text) is None


def test_csv_is_the_frame_with_all_its_digits(frame):
    rows = list(csv.DictReader(io.StringIO(tables.render(frame, ["in100-voc", "mini"], form="csv"))))
    part = frame[frame.table.isin(["in100-voc", "mini"])]
    assert len(rows) == len(part) == 3 * (4 + 6)
    assert list(rows[0]) == list(frame.columns.drop(["versus", "earlier", "costs", "details", "detections", "by_iou"]))
    for row, line in zip(rows, part.itertuples(), strict=True):
        assert (row["table"], row["metric"], row["verdict"]) == (line.table, line.metric, line.verdict)
        assert row["ours"] == ("" if math.isnan(line.ours) else repr(line.ours))
    assert "pretrain.epochs 500 → 1" in {row["deviations"] for row in rows}
    assert {row["held"] for row in rows} == {""}, "in no words of Python's"
