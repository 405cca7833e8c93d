"""What the terminal shows."""

import math
import re

import pytest

import tables
from resim_bench import evidence, record
from resim_bench.errors import UserError

RESIM = ("in100-resim-c4", "voc-full")
MINI = """\
Mini: the same recipes and protocols made small, on generated scenes
════════════════════════════════════════════════════════════════════
  pre-train       AP   AP50   AP75  trials
──────────────────────────────────────────
full fine-tuning
  random init.   5.4   11.2    3.4       1
  MoCo-v2        5.8   12.2    5.1       1
  ReSim-C4       7.4   17.7    4.1       1
frozen backbone
  random init.   5.7   13.8    3.2       1
  MoCo-v2        3.4    9.3    1.0       1
  ReSim-C4       7.7   17.5    5.1       1

6 of 6 rows have run.
`make mini` runs one seed, `make mini-study` all of the plan's (docs/findings.md). Generated scenes
and a network of 0.7 million weights are a scale model of the paper's experiment: what holds or
fails here does not decide the paper's claim.
"""


def block(text, title):
    """The lines of the table whose title begins with `title`."""
    return next(part for part in text.split("\n\n\n") if part.startswith(title)).splitlines()


def rows(lines):
    """Every row between the rule and the blank line, without footnote marks, its cells one space apart."""
    start = next(i for i, line in enumerate(lines) if line.startswith("─")) + 1
    body = lines[start : lines.index("")]
    return [" ".join(re.sub(r" \[\d+\]", "", line).split()) for line in body]


def shown(records, *arguments, **options):
    return tables.render(tables.collect(records), *arguments, **options)


def flat(text):
    return re.sub(r"\s+", " ", text)


def test_nothing_has_run():
    text = shown([])
    assert rows(block(text, "PASCAL VOC object detection after IN-100")) == [
        "random init. 33.8 60.2 33.1 unverified",
        "supervised 44.0 72.8 45.5 unverified",
        "MoCo-v2 54.4 80.1 60.0 unverified",
        "ReSim-C4 55.9 (+1.5) 81.3 (+1.2) 62.1 (+2.1) unverified",
    ]
    assert rows(block(text, "PASCAL VOC object detection after IN-1k"))[7:9] == [
        "BoWNet 55.8 (+2.3) 81.3 (+0.0) 61.1 (+2.3) no checkpoint –",
        "MoCo 55.9 (+2.4) 81.5 (+0.2) 62.6 (+3.8) unverified 55.9",
    ]
    assert "0 of 4 rows verified; run `make pretrain-random` then `make pretrain-in100` then\n" in text
    assert "0 of 5 rows verified; run `make pretrain-in100` then `make transfer-voc-frozen`." in text
    assert (
        "0 of 14 rows verified; 1 without a public checkpoint; run `make pretrain-random` then `make pretrain-in1k` "
        "then `resim-bench import` (9 released backbones) then `make transfer-voc-full` then "
        "`make transfer-voc-goyal19` then `make transfer-voc-pirl` then `make transfer-voc-swav`." in flat(text)
    )
    assert (
        "• Measured under another protocol, and compared under it: Jigsaw, Rotation under voc-goyal19; NPID++, PIRL "
        "under voc-pirl; SwAV under voc-swav. Our sources do not say under which: BoWNet. What others published under "
        "voc-full stands behind: of one method it is up to 11 AP from the paper's number" in flat(text)
    )
    assert "Mini" not in text
    assert "±" not in text, "no legend of verdicts where there is none"


def test_values_stand_under_their_headings(at_the_paper):
    lines = block(shown(at_the_paper()), "PASCAL VOC object detection after IN-1k")
    header = lines[2]
    for row in lines[4:6]:
        for metric, value in zip(("AP ", "AP50", "AP75"), re.findall(r"\d\d\.\d", row), strict=False):
            assert row[header.index(metric) :].startswith(value)


def test_ours_stands_beneath_the_paper(make_record):
    records = [make_record(*RESIM, 56.0 + i / 5, 81.3, 62.1, seeds=(0, i)) for i in range(2)]
    records.append(make_record("in100-moco-v2", "voc-full", 54.5, 80.0, 60.0))
    assert rows(block(shown(records, ["in100-voc"]), "PASCAL"))[2:] == [
        "MoCo-v2 54.4 80.1 60.0",
        "ours 54.5 80.0 60.0 1 match",
        "ReSim-C4 55.9 (+1.5) 81.3 (+1.2) 62.1 (+2.1)",
        "ours 56.1 ± 0.1 (+1.6) 81.3 ± 0.0 (+1.3) 62.1 ± 0.0 (+2.1) 2 match",
    ]


def test_coco_stands_side_by_side_with_lines_beneath(make_record):
    two = {"box_AP": 41.0, "box_AP50": 61.5, "box_AP75": 44.6, "mask_AP": 34.0, "mask_AP50": 58.4, "mask_AP75": 39.6}
    records = [
        make_record("in1k-moco-v2-200ep", "coco-2x", metrics=two | {"box_AP": 41.0 + i}, seeds=(0, i)) for i in range(2)
    ]
    lines = block(shown(records, ["coco-1x", "coco-2x"]), "COCO")
    assert lines[0].endswith("schedule 1× and 2×")
    assert lines[4].split() == ["pre-train", *["AP", "AP50", "AP75"] * 4, "verdict"]
    assert [word for word in lines[2].split() if "╌" not in word] == ["1×", "2×"]
    assert [word for word in lines[3].split() if "╌" not in word] == ["bb", "mk", "bb", "mk"]
    at = next(i for i, line in enumerate(lines) if line.startswith("MoCo-v2"))
    assert [" ".join(line.split()) for line in lines[at : at + 7]] == [
        "MoCo-v2 38.9 59.2 42.4 35.4 56.2 37.8 40.9 61.5 44.6 37.0 58.4 39.6",
        "− supervised +0.0 −0.4 −0.3 +0.0 −0.3 −0.3 +0.3 +0.2 +0.2 +0.2 +0.3 +0.1",
        "ours – – – – – – 41.5 61.5 44.6 34.0 58.4 39.6",
        "± 0.7 0.0 0.0 0.0 0.0 0.0",
        "verdict unverified below, 2 trials",
        "VADeR [1] 39.2 59.7 42.7 35.6 56.7 38.2 – – – – – – no checkpoint",
        "− supervised +0.3 +0.1 +0.0 +0.2 +0.2 +0.1",
    ], "mask AP is below, box AP inconclusive: the graver is the row's"
    assert lines[at + 4].index("below") == lines[at].index("40.9"), "under the table that it is about"
    assert any(line.startswith("ReSim-FPNᵀ (400 ep)") for line in lines)
    assert any(line.startswith("DenseCL† [1]") for line in lines)
    alone = block(shown(records, ["coco-2x"]), "COCO")
    assert len(alone[4].split()) == 1 + 6 + 1


def test_bold_marks_the_best_of_each_column(make_record):
    records = [
        make_record("in100-moco-v2", "voc-full", 54.04, 80.2, 60.0),
        make_record(*RESIM, 54.01, 80.2, 61.0),
        make_record("in100-supervised", "voc-full", 53.0, 80.2, 60.0),
        make_record("random", "voc-full", 99.0, 99.0, 99.0, deviations={"epochs": [1, 2]}),
    ]
    text = shown(records, ["in100-voc"], bold=True)
    bold = ["54.0", "55.9", "81.3", "62.1", "54.0", "61.0"]  # both of two, none where all three are equal
    assert re.findall("\033\\[1m(.*?)\033\\[0m", text) == bold
    assert re.sub("\033\\[[01]m", "", text) == shown(records, ["in100-voc"])
    alone = shown(records[:1], ["in100-voc"], bold=True)
    assert re.findall("\033\\[1m(.*?)\033\\[0m", alone) == ["55.9", "81.3", "62.1"], "one of ours is not the best"


def test_everything_has_run(at_the_paper):
    text = shown(at_the_paper(0.1))
    assert "4 of 4 rows verified (4 match)." in text
    assert "16 of 17 rows verified (16 match); 1 without a public checkpoint." in flat(text)
    assert "run `" not in text
    assert text.count("95 % confidence") == 1
    last = "fails here does not decide the paper's claim."
    assert flat(text).rstrip().endswith(last), "seed 0 is in no plan of a study that explores: those have no table"


def test_another_metric_that_is_above_is_a_remark(make_record):
    text = shown([make_record(*RESIM, 55.9, 81.3, 72.0)], ["in100-voc"])
    assert "• ReSim-C4: AP75 is above." in text


def test_lines_fit_a_terminal(at_the_paper, make_record):
    long = {f"model.head.setting_{i}": [[1] * 40, {"type": "SGD", "lr": 0.02}] for i in range(9)}
    complete = at_the_paper(0.1)
    again = [one | {"transfer": one["transfer"] | {"seed": 1}} for one in complete]
    deviating = [one | {"pretrain": one["pretrain"] | {"deviations": long}} for one in complete]
    for records in ([], complete, complete + again, deviating):
        for details in (False, True):
            text = shown(records, details=details)
            wide = [line for line in text.splitlines() if len(line) > 100 and "https://" not in line]
            assert wide == []
            assert text.endswith("\n")
            assert not text.endswith("\n\n")


def test_deviating_rows_name_a_handful_and_are_not_compared(make_record):
    setting = {name: [1, 2] for name in "abcdef"}
    records = [
        make_record(*RESIM, deviations=setting),
        make_record("in100-moco-v2", "voc-full", deviations={"z": [3, None]}),
    ]
    text = shown(records, ["in100-voc"])
    assert rows(text.splitlines())[5] == "ours 50.0 75.0 55.0 1 deviates"
    assert (
        "• ReSim-C4 deviates: pretrain.a 1 → 2; pretrain.b 1 → 2; pretrain.c 1 → 2; pretrain.d 1 → 2; and 2 more."
        in flat(text)
    )
    assert "• MoCo-v2 deviates: pretrain.z 3 → none." in flat(text)
    assert "0 of 4 rows verified; 2 deviate from the protocol and are not compared with the paper; run" in flat(text)
    assert "pretrain.f 1 → 2." in flat(shown(records, ["in100-voc"], details=True)), "all of them"


def test_details_say_what_stands_behind_each_row(make_record):
    records = [make_record(*RESIM, 56.0, seeds=(i, i)) for i in range(2)] + [make_record("given-moco-v2", "voc-full")]
    text = flat(shown(records, details=True))
    assert (
        "• ReSim-C4: in100-resim-c4 under voc-full, 2 trials of 2 pre-trainings, on 2 x cpu, commit abc; "
        "AP +0.1 to the paper, 95 % −0.4 … +0.6. Printed there, row 4. Protocol same as voc-full, read "
        "(resim-release). Recipe inferred: " in text
    )
    assert "• MoCo-v2: given-moco-v2 under voc-full, 1 trial of the released weights, on 2 x cpu" in text
    assert "• supervised: nothing has run: `make pretrain-in100`, then `make transfer-voc-full`." in text
    swav = "`resim-bench import FILE --as given-swav` (FILE: https://dl.fbaipublicfiles.com/deepcluster/"
    assert f"• SwAV: nothing has run: {swav}" in text
    fpn = "`make pretrain-in1k` or, with the released weights, `resim-bench import FILE --as given-resim-fpn-400ep`"
    assert f"• ReSim-FPNᵀ (400 ep) (2×): nothing has run: {fpn} (FILE: https://" in text
    assert "then `make transfer-coco-2x-fpn-t`. Printed there, row 9" in text
    assert "• VADeR (1×): no weights of its authors are known to be public." in text
    assert "Copied from MoCo's README, a mean of 5 trials. Protocol same as voc-full, read (moco)." in text
    assert "nothing has run" not in shown(records)


def test_released_weights_that_are_not_listed_are_still_named(monkeypatch):
    monkeypatch.setattr("tables.show.prose.released", lambda: {})
    text = flat(shown([], ["in1k-voc"], details=True))
    assert "`resim-bench import FILE --as given-swav` (FILE: where its authors publish it)" in text


def test_mini_is_what_it_was(make_record):
    printed = [[float(n) for n in re.findall(r"\d+\.\d", line)] for line in MINI.splitlines() if " 1" in line[-2:]]
    named = tables.load_tables()["mini"].rows
    records = [make_record(row.pretrain, row.transfer, *numbers) for row, numbers in zip(named, printed, strict=True)]
    text = shown(records)
    assert text.endswith("\n\n\n" + MINI)
    assert shown(records, ["mini"]) == MINI


def test_our_own_tables_appear_with_their_records(make_record):
    text = shown([make_record("in100-moco-v2", "voc-frozen-res5", 44.0)])
    assert rows(block(text, "VOC, the other reading"))[1] == "MoCo-v2, IN-100 44.0 75.0 55.0 1"
    assert "1 of 3 rows have run" in text
    assert "COCO with a frozen backbone" not in text


def test_no_negative_zero(make_record):
    text = shown([make_record(*RESIM, ap=55.89), make_record("in100-moco-v2", "voc-full", 55.91)], ["in100-voc"])
    assert "55.9 (+0.0)" in flat(text)


def test_what_an_earlier_edition_found_stands_behind(make_record):
    """And where nothing of it is at hand, as above, there is no column."""
    frame = tables.collect([make_record("mini-resim-c4", "mini-voc-full", 7.4, 17.7, 4.1)])
    before = {"MoCo-v2": (5.8, 0.5), "ReSim-C4": (6.0, math.nan)}
    frame["earlier"] = [before.get(label, (math.nan, math.nan)) for label in frame.label]
    lines = block(tables.render(frame, ["mini"]), "Mini")
    assert lines[2].split("  ")[-1] == "AP before"
    assert "AP before is of the first edition (`resim-bench tables mini-first`)." in lines
    assert rows(lines)[:4] == [
        "full fine-tuning",
        "random init. – – – 0",
        "MoCo-v2 – – – 0 5.8 ± 0.5",
        "ReSim-C4 7.4 17.7 4.1 1 6.0",
    ]
    assert "| ReSim-C4 | 7.4 | 17.7 | 4.1 | 1 | 6.0 |" in tables.render(frame, ["mini"], "markdown")


def test_where_a_table_is_too_wide_spreads_and_intervals_stand_beneath():
    frame = tables.collect(evidence.read_all(tables.RECORDS))
    for name in tables.load_tables():
        assert max(map(len, tables.render(frame, [name]).splitlines())) <= 100, name
    first, second = block(tables.render(frame, ["mini-controls-first"]), "Mini controls")[7:9]
    assert first.split() == ["ReSim-C4", "16.4", "28.2", "16.7", "3", "+6.3"]
    assert second.split() == ["±", "1.4", "±", "1.3", "±", "2.0", "(+3.3", "…", "+9.2)"]
    ends, starts = first.index("16.4") + 4, first.index("+6.3")
    assert second.index("± 1.4") + 5 == ends and second.index("(+3.3") == starts, "each beneath its value"


def test_mini_on_request_without_records():
    text = tables.report([], ["mini"])
    assert text.startswith("Mini")
    assert "0 of 6 rows have run; run `make mini`." in text


def test_report_reads_roots_and_refuses_unknown_tables_and_formats(make_record, tmp_path):
    record.write(tmp_path / "a", make_record(*RESIM, ap=55.9, ap50=81.3, ap75=62.1))
    text = tables.report([tmp_path / "absent", tmp_path / "a"], ["windows-full"])
    assert text.count("═\n") == 1
    assert rows(block(text, "Window size"))[3:5] == ["ReSim-C4 W48-S32 55.9 81.3 62.1", "ours 55.9 81.3 62.1 1 match"]
    with pytest.raises(UserError, match="no table 'windows': choose from in100-voc, windows-full"):
        tables.report([], ["windows"])
    with pytest.raises(UserError, match="no format 'html': choose from terminal, markdown, latex, csv"):
        tables.report([], form="html")


def test_claims_stand_under_all_the_papers_tables(make_record):
    text = flat(shown([]).split("What the summary says in words")[1])
    assert "ReSim is above MoCo-v2 in every table. In the paper: 80 of 81 comparisons hold; tie: " in text
    assert "tie: ReSim-C4 / DenseCL, AP (in1k-voc)." in text
    assert "fails: ReSim-C4 W48-S32 / ReSim-C4 W64-S48, AP, AP75 (windows-full)." in text
    assert "In ours" not in text
    assert "What the summary says" not in shown([], ["in1k-voc"])
