"""What the documents say of the studies is what their records say."""

import pytest

import tables
from resim_bench import evidence
from resim_bench.experiments import ROOT

FIGURE = ROOT / "docs" / "mini-study.svg"
SHOWN = "mini-first"  # the edition that the README and the figure show: the last one that has run
RAN = [study for study in tables.load_studies().values() if (tables.RECORDS / f"{study.id}.jsonl").exists()]
LATER = {tables.load_tables()[study.table].earlier for study in RAN}  # whose AP stands beside a later edition's


@pytest.mark.parametrize("table", [study.table for study in RAN if study.table not in LATER])
def test_the_table_of_the_findings_is_that_of_the_records(table):
    pages = [(ROOT / "docs" / page).read_text() for page in ("findings.md", "controls.md")]
    assert sum(tables.report([tables.RECORDS], [table], "markdown") in page for page in pages) == 1


def test_the_readme_shows_the_table_of_the_records():
    assert f"```\n{tables.report([tables.RECORDS], [SHOWN])}```" in (ROOT / "README.md").read_text()


def test_the_figure_is_that_of_the_records(tmp_path):
    frame = tables.collect(evidence.read_all(tables.RECORDS))
    tables.draw_study(tables.load_studies()[SHOWN], frame, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_bytes() == FIGURE.read_bytes()
