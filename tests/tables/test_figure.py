"""Figures of studies: what is drawn, and that the same records give the same file."""

import re

import pytest

import tables
from resim_bench import evidence
from resim_bench.errors import UserError
from tables import studies

PLAN = studies.load_studies()["mini"]
FIRST, SECOND, THIRD = PLAN.seeds[:3]


def frame(make_record, seeds):
    rows = tables.load_tables()["mini"].rows
    values = {seed: 10.0 + seed + number for number in range(len(rows)) for seed in seeds}
    records = [make_record(row.pretrain, row.transfer, values[s], seeds=(s, s)) for row in rows for s in seeds]
    return tables.collect(records)


@pytest.mark.parametrize("name", ["mini.svg", "mini.png"])
def test_the_same_records_give_the_same_file(make_record, tmp_path, name):
    files = [tmp_path / folder / name for folder in ("one", "other")]
    for file in files:
        tables.draw_study(PLAN, frame(make_record, [FIRST, SECOND]), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_every_seed_of_the_plan_is_a_dot_and_a_line(make_record, tmp_path):
    tables.draw_study(PLAN, frame(make_record, [0, FIRST, SECOND, THIRD]), tmp_path / "a.svg")
    tables.draw_study(PLAN, frame(make_record, [FIRST, SECOND]), tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    for word in ("full fine-tuning", "frozen backbone", "random init.", "MoCo-v2", "ReSim-C4", "AP, per cent"):
        assert word in text
    dots = [(tmp_path / name).read_text().count("PathCollection") for name in ("a.svg", "b.svg")]
    assert dots == [2 * 3, 2 * 2], "a collection a seed and panel; seed 0 is not of the plan"


def test_without_a_seed_there_is_nothing_to_draw(make_record, tmp_path):
    with pytest.raises(UserError, match="no seed of the study mini has run: run `resim-bench study mini` first"):
        tables.draw_study(PLAN, frame(make_record, [0]), tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_labels_stand_beside_each_other(tmp_path):
    """Of five rows, too, the longest of them with a raised letter."""
    frame = tables.collect(evidence.read_all(tables.RECORDS))
    tables.draw_study(studies.load_studies()["mini-coco"], frame, tmp_path / "a.svg")
    texts = re.findall(r'text-anchor: middle" x="([\d.]+)"[^>]*>([^<]+)', (tmp_path / "a.svg").read_text())
    labels = texts[:5]
    assert [text for _, text in labels] == ["random init.", "MoCo-v2", "ReSim-C4", "ReSim-FPN", "ReSim-FPNᵀ"]
    places = [float(place) for place, _ in labels]
    assert min(b - a for a, b in zip(places, places[1:], strict=False)) > 70, "points; the longest label has 63"


LENGTHS = studies.load_studies()["mini-length"]


def of_lengths(make_record, methods=("MoCo-v2", "ReSim-C4", "windows permuted"), seeds=LENGTHS.seeds):
    """Records of AP that grows with the length, from 10 per cent of the first method, 20 of the second."""
    records = []
    for row in tables.load_tables()["mini-length"].rows:
        if row.label in methods:
            epochs = int(row.group.removesuffix(" epochs"))
            for seed in seeds:
                ap = 10.0 * (1 + methods.index(row.label)) + epochs / 8 + seed / 10
                one = make_record(row.pretrain, row.transfer, ap, seeds=(seed, seed))
                records.append(one | {"pretrain": one["pretrain"] | {"epochs": float(epochs)}})
    return records


SECONDS = {"mini-moco-v2": 240.0, "mini-resim-c4-4ep": 160.0, "mini-resim-c4-permuted-32ep": 1280.0}


def test_lengths_have_a_line_a_method_and_a_dot_a_seed(make_record, tmp_path):
    files = [tmp_path / name for name in ("a.svg", "b.svg", "c.svg")]
    records = of_lengths(make_record)
    for file, given in zip(files, (records, records, of_lengths(make_record, seeds=LENGTHS.seeds[:2])), strict=True):
        tables.draw_lengths(tables.collect(given), SECONDS, file)
    text, again, fewer = (file.read_text() for file in files)
    assert text == again
    for words in ("epochs of pre-training", "minutes of pre-training", "MoCo-v2", "ReSim-C4", "windows permuted"):
        assert words in text
    assert all(f">{ticks}</text>" in text for ticks in (4, 8, 16, 32, 2, 5, 10, 20))
    dots = [sum(found.count("<use") for found in dots_of(text)) for text in (text, fewer)]
    assert dots == [2 * 12 * 3, 2 * 12 * 2], "of each panel, row and seed"


def dots_of(text):
    return re.findall(r'<g id="PathCollection_\d+">.*?\n   </g>', text, re.DOTALL)


def test_a_method_s_minutes_are_its_epochs_at_its_own_pace(make_record, tmp_path, monkeypatch):
    from tables.show import figure

    drawn = {}
    monkeypatch.setattr(
        figure,
        "_length",
        lambda panel, method, lines, scale, *_: drawn.setdefault(method, []).append([scale * n for n in lines.epochs]),
    )
    records = [*of_lengths(make_record), *of_lengths(make_record, seeds=[0])]
    tables.draw_lengths(tables.collect(records), SECONDS | {"mini-moco-v2-16ep": 540.0}, tmp_path / "a.svg")
    epochs = [4, 8, 16, 32]
    paces = {"MoCo-v2": (240 / 8 + 540 / 16) / 2, "ReSim-C4": 160 / 4, "windows permuted": 1280 / 32}
    for method, pace in paces.items():
        assert drawn[method] == [epochs, [pytest.approx(n * pace / 60) for n in epochs]], method


def test_lengths_without_records_or_logs(make_record, tmp_path):
    file, logged = tmp_path / "a.svg", ("mini-moco-v2", "mini-resim-c4-permuted-32ep")
    with pytest.raises(UserError, match="no row of mini-length has run: run `resim-bench study mini-length` first"):
        tables.draw_lengths(tables.collect(of_lengths(make_record, seeds=[0])), SECONDS, file)
    with pytest.raises(UserError, match="no pre-training of ReSim-C4 has its log here, .* by --work-dir"):
        tables.draw_lengths(tables.collect(of_lengths(make_record)), {id: SECONDS[id] for id in logged}, file)
    assert not file.exists()
