"""What readings are worth: statistics against slow twins, records of a known relation, what is printed and drawn."""

import math
import re
import statistics
from collections import Counter

import numpy as np
import pytest

import tables
from resim_bench import experiments
from resim_bench.errors import UserError
from tables.statistics import correlation_within, jackknife, left_out, line, mean_alone

METHODS = ["mini-random", "mini-moco-v2", "mini-resim-c4", "mini-resim-c4-whole", "mini-densecl"]
SEEDS = range(1, 6)


@pytest.fixture
def evidence(make_record):
    """Readings and frozen AP of five methods and five seeds.

    AP is 2 cells − 10; knn tells methods apart and nothing else; within a method, correspondence falls where AP rises.
    """
    rng = np.random.default_rng(0)
    records = []
    for number, method in enumerate(METHODS):
        for seed in SEEDS:
            chance = rng.normal()
            cells = 10 + 2 * number + chance
            found = {"cells": cells, "correspondence": 50 - chance, "knn": 30.0 + number, "spread": 40 + rng.normal()}
            records.append(make_record(method, "mini-voc-frozen", ap=2 * cells - 10, seeds=(seed, seed)))
            records.append(make_record(method, "readings-mini", metrics=found, seeds=(seed, seed)))
    for one in records:
        if one["transfer"]["id"] == "readings-mini":
            one["transfer"]["data"] = {"trainval_images": 400, "images": 100}
    return records


def random_points(seed=0):
    rng = np.random.default_rng(seed)
    return {name: {s: tuple(rng.normal(i, 1, 2)) for s in range(3 + i)} for i, name in enumerate("abcd")}


def test_the_correlation_within_is_that_of_what_methods_do_not_explain():
    points = random_points()
    method = np.array([i for i, of in enumerate(points.values()) for _ in of])
    x, y = np.array([pair for of in points.values() for pair in of.values()]).T
    dummies = np.eye(len(points))[method]
    rest = [v - dummies @ np.linalg.lstsq(dummies, v, rcond=None)[0] for v in (x, y)]
    assert correlation_within(points) == pytest.approx(np.corrcoef(*rest)[0, 1], abs=1e-12)


def test_a_method_is_predicted_by_the_others_alone():
    points = random_points()
    for fit, degree in ((line, 1), (mean_alone, 0)):
        errors = []
        for out in points:
            others = np.array([pair for name in points if name != out for pair in points[name].values()])
            own = np.array([*points[out].values()])
            said = np.polyval(np.polyfit(others[:, 0], others[:, 1], degree), own[:, 0])
            errors.append(np.abs(own[:, 1] - said).mean())
        assert left_out(points, fit) == pytest.approx(np.mean(errors), abs=1e-9)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = {seed: (0.0, float(seed**2)) for seed in range(7)}
    found = jackknife(lambda points: statistics.fmean(y for _, y in points["a"].values()), {"a": values})
    assert found.value == 13
    assert found.error == pytest.approx(statistics.stdev(y for _, y in values.values()) / math.sqrt(7))


def test_a_known_relation_is_found(evidence):
    found = tables.worth(tables.readings(evidence)).set_index("reading")
    assert set(found.methods) == {5} and set(found.backbones) == {25} and set(found.transfer) == {"mini-voc-frozen"}
    cells, knn, against = found.loc["cells"], found.loc["knn"], found.loc["correspondence"]
    assert cells.correlation.value == pytest.approx(1) and cells.error.value == pytest.approx(0, abs=1e-9)
    assert cells.correlation.error == pytest.approx(0, abs=1e-6)
    assert against.correlation.value == pytest.approx(-1) and against.gain.value < against.gain.error
    assert math.isnan(knn.correlation.value), "constant within each method"
    assert 0 < knn.error.value < knn.by_mean.value / 2
    assert knn.gain.value == pytest.approx(knn.by_mean.value - knn.error.value) and knn.gain.error > 0


def test_it_is_the_same_file_that_was_read_and_tested(evidence):
    other = [one for one in evidence if one["transfer"]["id"] == "mini-voc-frozen"]
    for one in other:
        one["pretrain"]["backbone_sha256"] = "1" * 64
    frame = tables.readings(evidence)
    assert len(frame) == 25 and set(frame.transfer) == {""} and frame.AP.isna().all()
    assert not len(tables.worth(frame))
    assert "No backbone has readings and frozen AP: `resim-bench judge ID`" in tables.of_worth(frame)


def test_what_deviates_and_what_trains_the_trunk_do_not_count(evidence, make_record):
    whole = len(tables.readings(evidence))
    evidence[1]["pretrain"]["deviations"] = {"epochs": [8, 1]}  # readings
    evidence[2]["transfer"]["deviations"] = {"max_iters": [480, 1]}  # a transfer
    evidence.append(make_record("mini-densecl", "mini-voc-full", seeds=(1, 1)))
    frame = tables.readings(evidence)
    assert len(frame) == whole - 1 and (frame.transfer == "").sum() == 1
    assert set(frame.transfer) == {"", "mini-voc-frozen"}


def test_other_images_are_another_block(evidence):
    for one in evidence[:10]:
        if one["transfer"]["id"] == "readings-mini":
            one["transfer"]["data"] = {"trainval_images": 296, "images": 100}
    assert tables.of_worth(tables.readings(evidence)).count("What readings-mini say of the AP of mini-voc-frozen") == 2


def test_a_table_names_the_methods(evidence):
    frame = tables.readings(evidence, tables.load_tables()["mini"])
    assert set(frame.method) == {"random init.", "MoCo-v2", "ReSim-C4"} and set(frame.transfer) == {"mini-voc-frozen"}


def test_two_methods_or_one_seed_are_too_little(evidence):
    few = [one for one in evidence if one["pretrain"]["id"] in METHODS[:2] and one["pretrain"]["seed"] == 1]
    text = tables.of_worth(tables.readings(few))
    assert "2 backbones of 2 methods" in text and re.search("^cells( +–){4}$", text, re.MULTILINE)
    assert "Too few methods to say" in tables.beside(evidence[-1], tables.readings(few))


def test_the_worth_of_readings_is_a_table(evidence):
    text = tables.of_worth(tables.readings(evidence))
    assert "What readings-mini say of the AP of mini-voc-frozen: 25 backbones of 5 methods" in text
    assert re.search("^cells +1.00 ± 0.00  0.0 ± 0.0 ", text, re.MULTILINE)
    fewer = [one for one in evidence if one["pretrain"]["id"] != METHODS[0] or one["pretrain"]["seed"] > 2]
    assert "23 backbones of 5 methods, 3 to 5 each" in tables.of_worth(tables.readings(fewer))
    assert max(map(len, text.splitlines())) <= 100


def test_a_backbone_stands_beside_the_known_ones(evidence):
    mine = evidence[-1]
    assert mine["transfer"]["id"] == "readings-mini"
    mine["metrics"] = mine["metrics"] | {"cells": 15.0}
    text = tables.beside(mine, tables.readings(evidence))
    lines = text.splitlines()
    order = [line.split("  ")[0] for line in lines[3:] if line.startswith(("mini-", "→"))]
    assert order == ["mini-densecl", "mini-resim-c4-whole", "→ this one", *METHODS[2::-1], "mini-voc-frozen"]
    said = next(line for line in lines if "AP that it says" in line)
    assert said.split()[4] == "20.0", "2 × 15 − 10"
    assert re.search("^  off by +0.0 ± 0.0 ", text, re.MULTILINE)
    for one in evidence:
        one["transfer"]["data"] = {"images": 100} if one is mine else one["transfer"]["data"]
    alone = tables.beside(mine, tables.readings(evidence))
    assert "no other backbone was read on these images and has frozen AP" in " ".join(alone.split())
    assert "mini-random" not in alone, "read on other images"


def test_the_figure_has_a_mark_for_each_method_and_is_the_same_each_time(evidence, tmp_path):
    for name in ("one.svg", "other.svg"):
        tables.draw_readings(tables.readings(evidence), tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "other.svg").read_text()
    for word in (*METHODS, "cells, per cent", "spread, per cent", "mini-voc-frozen", "readings-mini"):
        assert f">{word}<" in drawn, word
    shapes = dict(re.findall(r'<path id="(m\w+)" d="(.*?)"', drawn, re.DOTALL))
    used = re.findall(r'<use xlink:href="#(m\w+)".*?fill: (#\w+)"', drawn)
    dots = Counter((shapes[mark], colour) for mark, colour in used)
    assert len(METHODS) == len({shape for shape, _ in dots}) == len({colour for _, colour in dots}) == len(dots)
    assert set(dots.values()) == {4 * len(SEEDS) + 1}, "a dot a panel and backbone, and the legend's"


def test_a_figure_of_nothing_is_refused(evidence, tmp_path):
    with pytest.raises(UserError, match="no backbone here has readings and frozen AP: run `resim-bench judge ID`"):
        tables.draw_readings(tables.readings(evidence[1::2]), tmp_path / "a.svg")


def test_a_row_of_a_table_may_be_of_readings(evidence, monkeypatch):
    """A study's plan that reads backbones: its table has no AP."""
    row = {"group": "readings", "label": "MoCo-v2", "pretrain": "mini-moco-v2", "transfer": "readings-mini"}
    table = {"paper": "resim", "order": 99, "title": "Readings", "source": "ours", "data": "readings", "check": False}
    table |= {"metrics": ["cells", "correspondence", "knn", "spread"], "run": ["make x"], "rows": [row]}
    found = [*experiments.reported_tables().items(), ("mini-readings", table)]
    monkeypatch.setattr(experiments, "_parse", lambda folder: found)
    text = tables.render(tables.collect(evidence), ["mini-readings"], details=True)
    cells = [
        one["metrics"]["cells"]
        for one in evidence
        if one["pretrain"]["id"] == "mini-moco-v2" and "cells" in one["metrics"]
    ]
    assert f"  MoCo-v2     {statistics.fmean(cells):.1f} ± {statistics.stdev(cells):.1f}" in text
