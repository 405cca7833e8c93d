"""The page: the frame's numbers and no others, nothing from outside, and no word of a record taken for HTML."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from datetime import UTC, datetime

import html5lib
import pytest

import tables
from resim_bench import evidence, files
from resim_bench.errors import UserError
from resim_bench.harness import runs, trace
from resim_bench.record import ERRORS
from tables.page import charts, page
from tables.show import prose
from tables.show.layout import one_decimal

MADE = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
UNSEEN = ("script", "style")
HOSTILE = "<script>alert(1)</script>\"'&</style>]]>{{ 7 * 6 }} \u202eאבג " + 10_000 * "x"


def shown(records, of_runs=()):
    return page.page(tables.collect(records), of_runs, "0" * 40, MADE)


def parsed(text):
    """The page's tree; html5lib refuses what is no HTML."""
    return html5lib.HTMLParser(html5lib.treebuilders.getTreeBuilder("etree"), strict=True).parse(text)


def found(tree, tag, **attributes):
    """Elements of a tag whose attributes have these words."""
    wanted = {name.rstrip("_"): value for name, value in attributes.items()}
    return [
        node
        for node in tree.iter()
        if isinstance(node.tag, str) and node.tag.rpartition("}")[2] == tag
        if all(value in node.get(name, "").split(" ") for name, value in wanted.items())
    ]


def words(node):
    return " ".join("".join(node.itertext()).split())


def embedded(tree):
    (script,) = found(tree, "script", id="data")
    return json.loads(script.text)


@pytest.fixture
def records(at_the_paper):
    """Of most experiments of the papers one or two, one of them deviating; and what is committed."""
    ours = [one for one in at_the_paper(0.24) if not re.search("-w|mini", one["pretrain"]["id"])]
    again = [
        one | {"transfer": one["transfer"] | {"seed": 1}, "metrics": {k: v - 1 for k, v in one["metrics"].items()}}
        for one in ours[::3]
    ]
    ours[2]["pretrain"]["deviations"] = {"epochs": [500, 1]}
    return [*ours, *again, *evidence.read_all(tables.RECORDS)]


@pytest.fixture
def frame(records):
    return tables.collect(records)


@pytest.fixture
def tree(frame, _trees={}):  # noqa: B006 (a page of the same records is read once)
    if not _trees:
        _trees["usual"] = parsed(page.page(frame, [], "0" * 40, MADE))
    return _trees["usual"]


def test_every_number_is_the_frames(frame, tree):
    data = embedded(tree)
    assert data["commit"] == "0" * 40 and data["made"] == "2026-03-04T05:06:00+00:00"
    for line, of_page in zip(frame.to_dict("records"), data["frame"], strict=True):
        for name in ("reported", "ours", "std", "difference", "low", "high", "reported_delta", "delta", "trials"):
            assert of_page[name] == line[name] or (of_page[name] is None and math.isnan(line[name]))
        assert of_page["by_seed"] == {str(seed): value for seed, value in line["by_seed"].items()}
    cells = {node.get("popovertarget"): node for node in found(tree, "button", class_="cell")}
    lines = {f"{line.table}.{line.row}.{line.metric}": line for line in frame.itertuples()}
    ran = set(frame[frame.trials > 0].table) | {study.table for study in tables.load_studies().values()}
    assert cells.keys() == {id for id, line in lines.items() if line.table in ran or not math.isnan(line.reported)}
    details = {node.get("id"): words(node) for node in found(tree, "article")}
    for id, cell in cells.items():
        line = lines[id]
        expected, reports = [], tables.load_tables()[line.table].reports
        if reports:
            delta = "" if math.isnan(line.reported_delta) else one_decimal(line.reported_delta, signed=True)
            expected.append(f"paper {one_decimal(line.reported)} {delta}".strip())
        if line.trials or not reports:
            spread = "" if math.isnan(line.std) else f"± {line.std:.1f}"
            expected.append(f"ours {one_decimal(line.ours)} {spread}".strip())
        numbers = [words(node) for node in found(cell, "span") if node.get("class") in ("paper", "ours")]
        assert numbers == expected
        interval = f"{one_decimal(line.low, signed=True)} … {one_decimal(line.high, signed=True)}"
        assert (interval in details[id]) == (not math.isnan(line.low))
        assert all(one_decimal(value) in details[id] for value in line.by_seed.values())


def test_what_is_missing_says_how_to_get_it():
    tree = parsed(shown([]))
    assert words(found(tree, "h1")[0]) == "0 of 186 numbers verified."
    counts = {node.get("value"): words(label) for label in found(tree, "label") for node in found(label, "input")}
    assert counts["unverified"] == "unverified 177" and counts["no checkpoint"] == "no checkpoint 9"
    assert counts["match"] == "match 0", "that there is none is said"
    details = {node.get("id"): words(node) for node in found(tree, "article")}
    assert "make pretrain-in100, then make transfer-voc-full" in details["in100-voc.3.AP"]
    assert "same as voc-full, read (resim-release)" in details["in100-voc.3.AP"]
    text = words(tree)
    assert "No study of ours has been judged yet" in text and "No seed has run" in text
    assert "No record says what errors cost" in text and "Nothing has run in this work directory" in text


def test_nothing_comes_from_outside(tree):
    addresses = [
        node.get(name)
        for node in tree.iter()
        for name in ("href", "src", "action", "data", "poster", "srcset")
        if node.get(name)
    ]
    assert addresses and all(address.startswith("#") or address == "data:," for address in addresses)
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
    style, script = found(tree, "style")[0].text, found(tree, "script")[-1].text
    assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp|import\(|WebSocket", style + script)
    (policy,) = (node.get("content") for node in found(tree, "meta") if node.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    for inside in (style, script):
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in policy
    assert not any(name == "style" or name.startswith("on") for node in tree.iter() for name in node.attrib)


def without(tree, rows):
    """The page's words but those about rows: their cells' details, what is said beneath their tables, the data."""
    for above in list(tree.iter()):
        for node in list(above):
            id = node.get("id") or ""
            if id == "data" or id.rpartition(".")[0] in rows or node.get("class") == "said":
                above.remove(node)
    return "".join(tree.itertext())


def test_a_hostile_record_changes_nothing_but_its_own_cells(make_record):
    """MoCo-v2 on IN-100 stands in two tables; beneath them is said how it deviates."""

    def one(text):
        record = make_record("in100-moco-v2", "voc-full", deviations={text: ["a", text]})
        return parsed(shown([record | {"device": text, "commit": text}]))

    hostile, plain = one(HOSTILE), one("plain")
    assert len(found(hostile, "script")) == len(found(plain, "script")) == 2
    assert embedded(hostile)["frame"][6]["devices"] == HOSTILE
    (detail,) = found(hostile, "article", id="in100-voc.2.AP")
    assert words(detail).count("<script>alert(1)</script>\"'&</style>]]>{{ 7 * 6 }}") == 3
    others = (without(tree, ("in100-voc.2", "windows-full.0")) for tree in (hostile, plain))
    assert next(others) == next(others)


def test_raised_letters_are_raised(tree):
    """In no word that is read or heard is there the mark that stands for them."""
    seen = [node for node in tree.iter() if isinstance(node.tag, str) and node.tag.rpartition("}")[2] not in UNSEEN]
    said = [text for node in seen for text in (node.text, node.tail, *node.attrib.values()) if text]
    assert len(said) > 1000 and not [text for text in said if re.search(r"\^\w", text)]


def test_a_study_has_every_seed_and_its_claims(frame, tree):
    (mini,) = found(tree, "section", id="mini-first")
    lines = frame[(frame.table == "mini-first") & (frame.metric == "AP")]
    dots = [words(node) for node in found(mini, "title")]
    assert sorted(dots) == sorted(
        f"{line.label}, seed {seed}: {one_decimal(value)}"
        for line in lines.itertuples()
        for seed, value in line.by_seed.items()
    )
    joined = found(mini, "path", class_="joined")
    assert len(joined) == 2 * 10, "of each group, each seed"
    judged = frame.attrs["judged"]["mini-first"]
    (claims,) = found(mini, "table", class_="claims")
    assert len(found(claims, "tr")) == 1 + len(judged)
    assert all(f"{one_decimal(one.found.mean, signed=True)} (" in words(claims) for one in judged)
    assert all(prose.of_test(one) in words(claims) for one in judged)
    first = f"Our own study: {frame.attrs['judged']['mini'][0].claim.text}. "
    assert first in words(found(tree, "header")[0]), "the first screen says what the last edition found"


def test_raised_letters_of_a_drawing_are_unicode(tree):
    """An SVG has no `<sup>`, and what a screen reader says has no tags."""
    (half,) = found(tree, "section", id="mini-coco")
    (drawing,) = found(half, "svg", class_="chart")
    assert "ReSim-FPNᵀ" in [words(node) for node in found(drawing, "text")]
    assert "ReSim-FPNᵀ, seed 11: 22.0" in [words(node) for node in found(drawing, "title")]
    assert drawing.get("aria-label").startswith("APᵇᵇ of every seed, ")


def test_editions_stand_beside_each_other(frame, tree):
    together = [[node.get("id") for node in found(of, "section")] for of in found(tree, "div", class_="editions")]
    assert together[:3] == [["mini-first", "mini"], ["mini-coco"], ["mini-coco-2x"]]
    assert together[3:5] == [["mini-controls-first", "mini-controls"], ["mini-choices"]]
    assert "An earlier edition, by the protocols of its day" in words(found(tree, "section", id="mini-first")[0])
    (controls,) = found(found(tree, "section", id="mini-controls")[0], "table", class_="grid")
    head, *rows = [row for row in found(controls, "tr") if row.get("class") != "group"]
    assert [words(cell) for cell in head][-3:] == ["AP − MoCo-v2", "AP − ReSim-C4", "AP before"]
    assert words([*rows[0]][-1]) == "10.1 ± 2.0"
    frame.attrs["judged"]["mini"] = []
    before = parsed(page.page(frame, (), "0" * 40, MADE))
    assert "Our own study, first edition: ReSim-C4" in words(found(before, "header")[0]), "the last one that is judged"


def test_no_column_is_for_an_edition_of_which_nothing_is_known(make_record):
    tree = parsed(page.page(tables.collect([make_record("mini-moco-v2", "mini-voc-frozen")]), (), "0" * 40, MADE))
    (mini,) = found(tree, "section", id="mini")
    assert "MoCo-v2" in words(mini) and "AP before" not in words(mini)


def test_errors_have_bars_and_gains_lines(make_record):
    def one(name, seed, gain):
        costs = {iou: {kind: 10.0 + place for place, kind in enumerate(ERRORS)} for iou in ("0.5", "0.75")}
        by_iou = {str(iou): 50.0 + gain for iou in range(50, 100, 5)}
        detail = {"box": {"by_iou": by_iou}, "errors": {"box": costs}}
        return make_record(name, "mini-voc-full", seeds=(seed, seed)) | {"detail": detail}

    records = [one("mini-moco-v2", 1, 0.0), one("mini-resim-c4", 1, 2.0), one("mini-resim-c4", 2, 4.0)]
    frame = tables.collect(records)
    (line,) = frame[(frame.table == "mini") & (frame.row == 2) & (frame.metric == "AP")].itertuples()
    assert line.by_iou["50"] == (53.0, pytest.approx(2**0.5)) and line.costs["0.5"]["AP"][0] == 10.0
    (section,) = found(parsed(shown(records)), "section", id="errors")
    rows = [[words(cell) for cell in row] for row in found(section, "tr")]
    assert ["ReSim-C4", *(f"{10.0 + place:.1f}" for place in range(len(ERRORS))), "2"] in rows
    assert len(found(section, "rect")) == 2 * 2 * (len(ERRORS) - 1), "two rows at two thresholds"
    gain, _ = found(section, "path", class_="l0")
    heights = {point.split(" ")[1] for point in gain.get("d")[1:].split("L")}
    assert len(heights) == 1, "3.0 at each IoU"
    assert "Gain over the baseline at each IoU, full fine-tuning, AP" in words(section)


def run(work_dir, room, name, lines=(), started="1"):
    folder = work_dir / room / name
    (folder / started / "vis_data").mkdir(parents=True)
    (folder / runs.CLAIM).write_text("{}")
    if not lines:
        return folder
    (folder / started / "vis_data" / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def step(iteration, loss=1.0, **more):
    return {
        "iter": iteration,
        "lr": 0.1,
        "eta": 90.0,
        "images/s": 12.0,
        "loss": loss,
        "loss_c4": loss / 2,
        "top1": 40.0,
    } | more


def test_runs_have_their_state_their_estimate_and_curves(tmp_path):
    done = run(tmp_path, "pretrain", "one/seed-0", [step(50), step(100, 0.5)])
    (done / "backbone.safetensors").touch()
    (done / trace.MONITOR).write_text('{"iter": 0, "knn": 0.25, "spread": 0.5}\n{"iter": 100, "knn": 0.5}\n{"iter": 1')
    busy = run(tmp_path, "transfer", "one/voc-full/pretrain-0_transfer-0", [step(20), {"step": 1, "AP": 3.0}])
    run(tmp_path, "pretrain", "none/seed-3")
    hold = f"import time; from resim_bench import files; c = files.locked({str(busy / runs.LOCK)!r}, ''); c.__enter__()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print(1, flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline()
        assert files.is_locked(busy / runs.LOCK)
        of_runs = trace.found(tmp_path)
        tree = parsed(shown([], of_runs))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (section,) = found(tree, "section", id="runs")
    rows = [[words(cell) for cell in row] for row in found(section, "tr")[1:]]
    rows = {name: cells for name, *cells in rows}
    assert rows["pretrain one, seed-0"][:5] == ["finished", "100", "–", "0.500", "12.0"]
    assert rows["transfer one, voc-full, pretrain-0_transfer-0"][:4] == ["running", "20", "0:01:30", "1.000"]
    assert rows["pretrain none, seed-3"] == ["stopped", *["–"] * 5]
    names = [words(item) for item in found(section, "li")]
    assert {"loss 0.5", "loss_c4 0.25", "top1 40", "knn 0.5", "spread 0.5"} <= set(names)
    curves = next(run for run in embedded(tree)["runs"] if run["name"] == "one, seed-0")["curves"]
    assert curves["loss"]["loss"] == [[50, 1.0], [100, 0.5]] and curves["monitor"]["knn"] == [[0, 0.25], [100, 0.5]]


def test_a_run_that_continued_is_one_curve(tmp_path):
    folder = run(tmp_path, "pretrain", "one/seed-0", [step(1), step(2, 9.0)], "20260101")
    run_again = folder / "20260102" / "vis_data"
    run_again.mkdir(parents=True)
    (run_again / "scalars.json").write_text(json.dumps(step(2, 3.0)) + "\n" + json.dumps(step(3))[:20])
    assert [(line["iter"], line["loss"]) for line in trace.progress(folder)] == [(1, 1.0), (2, 3.0)]
    assert [one.state for one in trace.found(tmp_path)] == ["stopped"]
    assert trace.found(tmp_path / "nowhere") == []


def test_long_runs_stay_small(tmp_path, at_the_paper):
    lines = [step(done, 1 / done) for done in range(1, 3001)]
    for seed in range(page.RUNS + 6):
        run(tmp_path, "pretrain", f"long/seed-{seed}", lines if seed < 3 else lines[::30])
    text = shown(at_the_paper(), trace.found(tmp_path))
    assert len(text.encode()) < 5e6
    assert "And 6 older ones: 6 stopped." in text


def test_points_are_thinned_to_means_and_the_last():
    points = [(float(x), float(x % 2)) for x in range(1000)]
    thinned = charts.thinned(points)
    assert len(thinned) <= 161 and thinned[-1] == points[-1]
    assert all(0.2 < y < 0.8 for _, y in thinned[:-1])
    assert charts.thinned(points[:5]) == points[:5]


@pytest.mark.parametrize(("low", "high"), [(0.0, 25.0), (3.2, 18.1), (-0.4, 0.9), (7.0, 7.0), (0.0, 0.0), (1e-9, 3e-9)])
def test_ticks_hold_the_values_and_are_round(low, high):
    marks = charts.ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high and 2 <= len(marks) <= 7 and marks == sorted(set(marks))


def test_the_command_writes_it_without_torch_and_in_time(tmp_path):
    script = (
        "import sys; from resim_bench.cli import main; code = main(); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    file = tmp_path / "all.html"
    words = [sys.executable, "-c", script, "report", str(file), "--work-dir", str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    assert re.fullmatch(rf"wrote {re.escape(str(file))} \(\d\.\d MB\): open it in a browser\n", said)
    tree = parsed(file.read_text("utf-8"))
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|unknown", embedded(tree)["commit"])
    with pytest.raises(UserError, match=r"all.txt does not end in .html: name the file so"):
        page.write(tables.collect([]), [], "", MADE, tmp_path / "all.txt")


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_are_told_apart_in_every_scheme():
    """WCAG AA: 4.5 for text, 3 for what is drawn."""
    style = (page.HERE / "style.css").read_text()
    schemes = [
        dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{([^}]*--page[^}]*)\}", style)
    ]
    assert len(schemes) == 3, "light, dark, print"
    for scheme in schemes:
        pairs = [
            (text, ground, 4.5) for text in ("ink", "soft", "accent") for ground in ("page", "raised", "faint", "wash")
        ]
        for text, ground, least in [*pairs, ("edge", "page", 3.0), ("page", "ink", 4.5)]:
            lighter, darker = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= least, (text, ground)
