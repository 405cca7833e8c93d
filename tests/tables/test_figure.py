"""The study's figure: what is drawn, and that the same records give the same file."""

import pytest

import tables
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
