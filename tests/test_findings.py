"""What the documents say of the studies is what their records say."""

import pytest

import tables
from resim_bench import evidence
from resim_bench.experiments import ROOT

DOCS = ROOT / "docs"
SHOWN = "mini"  # the edition that the README and the figures show: the last one that has run
RAN = [study for study in tables.load_studies().values() if (tables.RECORDS / f"{study.id}.jsonl").exists()]
SECONDS = {  # of pre-trainings when docs/length.svg was drawn; records do not say
    "mini-moco-v2": 202.1245400268798,
    "mini-resim-c4": 243.89430801424007,
    "mini-resim-c4-permuted-16ep": 495.0048938800702,
}
BESIDE = "mini-first"  # no table of its own: its AP stands beside the second edition's


@pytest.mark.parametrize("table", [study.table for study in RAN if study.table != BESIDE])
def test_the_table_of_the_findings_is_that_of_the_records(table):
    pages = [(DOCS / page).read_text() for page in ("findings.md", "controls.md")]
    assert sum(tables.report([tables.RECORDS], [table], "markdown") in page for page in pages) == 1


def test_the_readme_shows_the_table_of_the_records():
    assert f"```\n{tables.report([tables.RECORDS], [SHOWN])}```" in (ROOT / "README.md").read_text()


def test_the_figures_are_those_of_the_records(tmp_path):
    records = evidence.read_all(tables.RECORDS)
    for id, name in ((SHOWN, "mini-study.svg"), ("mini-coco", "mini-coco.svg")):
        tables.draw_study(tables.load_studies()[id], tables.collect(records), tmp_path / name)
    tables.draw_readings(tables.readings(records), tmp_path / "readings.svg")
    tables.draw_lengths(tables.collect(records), SECONDS, tmp_path / "length.svg")
    for drawn in tmp_path.iterdir():
        assert drawn.read_bytes() == (DOCS / drawn.name).read_bytes(), f"docs/{drawn.name}"


def test_what_readings_are_worth_is_that_of_the_records():
    said = tables.of_worth(tables.readings(evidence.read_all(tables.RECORDS), tables.load_tables()[SHOWN]))
    grid, _ = said.split("\n\n")
    assert f"```\n{grid}\n```" in (DOCS / "controls.md").read_text()
