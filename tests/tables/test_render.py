import re

import pytest

import tables
from resim_bench import record
from resim_bench.errors import UserError
from resim_bench.experiments import experiments

RESIM = ("in100-resim-c4", "voc-full")


def block(text, title):
    """The lines of the table whose title begins with `title`."""
    return next(part for part in text.split("\n\n\n") if part.startswith(title)).splitlines()


def rows(lines):
    """Every row between the rule and the blank line, without footnote marks, its cells one space apart."""
    start = next(i for i, line in enumerate(lines) if line.startswith("─")) + 1
    body = lines[start : lines.index("")]
    return [" ".join(re.sub(r" \[\d+\]", "", line).split()) for line in body]


def complete(make_record):
    reported = {row.experiment: row.reported for t in tables.load_tables().values() for row in t.rows}
    records = []
    for experiment in experiments():
        paper = reported[experiment] or {"AP": 10.0, "AP50": 20.0, "AP75": 8.0}
        records.append(make_record(*experiment, paper["AP"] + 0.13, paper["AP50"] - 0.21, paper["AP75"] + 10.0))
    return records


def test_nothing_has_run():
    text = tables.render(tables.collect([]))
    lines = block(text, "PASCAL VOC object detection after IN-100")
    assert rows(lines) == [
        "random init. 33.8 – – 60.2 – – 33.1 – – 0 unverified",
        "supervised 44.0 – – 72.8 – – 45.5 – – 0 unverified",
        "MoCo-v2 54.4 – – 80.1 – – 60.0 – – 0 unverified",
        "ReSim-C4 55.9 – – 81.3 – – 62.1 – – 0 unverified",
    ]
    assert "0 of 4 rows verified; run `make pretrain-random` then `make pretrain-in100` then\n" in text
    assert "0 of 5 rows verified; run `make pretrain-in100` then `make transfer-voc-frozen`." in text
    assert "Mini" not in text
    assert "±" not in text, "no legend of verdicts where there is none"


def test_header_stands_over_its_columns():
    lines = block(tables.render(tables.collect([])), "PASCAL VOC")
    over, header, first = lines[2], lines[3], lines[5]
    assert over.split() == ["AP", "AP50", "AP75"]
    assert header.split() == ["pre-train", *["paper", "ours", "diff"] * 3, "trials", "verdict"]
    papers = [match.start() for match in re.finditer("paper", header)]
    for metric, value, start in zip(("AP", "AP50", "AP75"), ("33.8", "60.2", "33.1"), papers, strict=True):
        assert first[start : start + 5].strip() == value
        at = re.search(rf"\b{metric}\b", over).start()
        assert abs((at + len(metric) / 2) - (start + len("paper ours diff") / 2)) <= 1, "centred"


def test_everything_has_run(make_record):
    text = tables.render(tables.collect(complete(make_record)))
    assert rows(block(text, "Window size and stride: IN-100 pre-training, VOC, frozen"))[3] == (
        "ReSim-C4 W48-S32 50.0 50.1 +0.1 77.2 77.0 −0.2 55.0 65.0 +10.0 1 match"
    )
    assert "4 of 4 rows verified (4 match)." in text
    assert "• ReSim-C4 W48-S32: AP75 is above." in text
    assert "run `make" not in text
    assert text.count("95 % confidence") == 1
    assert text.rstrip().endswith("no evidence for or against the paper's claim."), "mini's sentence is the last"


def test_lines_fit_a_terminal(make_record):
    long = {f"model.head.setting_{i}": [[1] * 40, {"type": "SGD", "lr": 0.02}] for i in range(9)}
    deviating = [make_record(*experiment, deviations=long) for experiment in experiments()]
    for records in ([], complete(make_record), deviating):
        text = tables.render(tables.collect(records))
        assert max(map(len, text.splitlines())) <= 100
        assert text.endswith("\n")
        assert not text.endswith("\n\n")


def test_deviating_rows_name_a_handful_and_are_not_compared(make_record):
    setting = {name: [1, 2] for name in "abcdef"}
    records = [
        make_record(*RESIM, deviations=setting),
        make_record("in100-moco-v2", "voc-full", deviations={"z": [3, None]}),
    ]
    text = tables.render(tables.collect(records), ["in100-voc"])
    assert rows(text.splitlines())[3] == "ReSim-C4 55.9 50.0 – 81.3 75.0 – 62.1 55.0 – 1 deviates"
    flat = re.sub(r"\s+", " ", text)
    assert (
        "• ReSim-C4 deviates: pretrain.a 1 → 2; pretrain.b 1 → 2; pretrain.c 1 → 2; pretrain.d 1 → 2; and 2 more."
        in flat
    )
    assert "• MoCo-v2 deviates: pretrain.z 3 → none." in flat
    assert "0 of 4 rows verified; 2 deviate from the protocol and are not compared with the paper; run" in flat


def test_mini_appears_with_its_records_and_closes_with_what_it_shows(make_record):
    mini = [one for one in complete(make_record) if one["pretrain"]["id"].startswith("mini")]
    text = tables.render(tables.collect(mini))
    lines = block(text, "Mini")
    assert [row.split()[-4:] for row in rows(lines) if "." in row] == [["10.1", "19.8", "18.0", "1"]] * 6
    assert [row for row in rows(lines) if "1" not in row] == ["full fine-tuning", "frozen backbone"]
    assert "6 of 6 rows have run." in lines
    assert "paper" not in lines[2]
    closing = " ".join(text.splitlines()[-2:])
    assert "generated scenes and one seed" in closing
    assert closing.endswith("no evidence for or against the paper's claim.")


def test_no_negative_zero(make_record):
    text = tables.render(tables.collect([make_record(*RESIM, ap=55.89)]), ["in100-voc"])
    assert "55.9 55.9 +0.0" in text


def test_mini_on_request_without_records():
    text = tables.report([], ["mini"])
    assert text.startswith("Mini")
    assert "0 of 6 rows have run; run `make mini`." in text


def test_report_reads_roots_and_refuses_unknown_tables(make_record, tmp_path):
    record.write(tmp_path / "a", make_record(*RESIM, ap=55.9, ap50=81.3, ap75=62.1))
    text = tables.report([tmp_path / "absent", tmp_path / "a"], ["windows-full"])
    assert text.count("═\n") == 1
    assert rows(block(text, "Window size"))[3].endswith("55.9 55.9 +0.0 81.3 81.3 +0.0 62.1 62.1 +0.0 1 match")
    with pytest.raises(UserError, match="no table 'windows': choose from in100-voc, windows-full"):
        tables.report([], ["windows"])
