"""What the documents say of the studies is what their records say."""

import pytest

import tables
from resim_bench import evidence
from resim_bench.experiments import ROOT

FIGURE = ROOT / "docs" / "mini-study.svg"


@pytest.mark.parametrize("study", tables.load_studies())
def test_the_table_of_the_findings_is_that_of_the_records(study):
    table = tables.load_studies()[study].table
    pages = [(ROOT / "docs" / page).read_text() for page in ("findings.md", "controls.md")]
    assert sum(tables.report([tables.RECORDS], [table], "markdown") in page for page in pages) == 1


def test_the_readme_shows_the_table_of_the_records():
    assert f"```\n{tables.report([tables.RECORDS], ['mini'])}```" in (ROOT / "README.md").read_text()


def test_the_figure_is_that_of_the_records(tmp_path):
    frame = tables.collect(evidence.read_all(tables.RECORDS))
    tables.draw_study(tables.load_studies()["mini"], frame, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_bytes() == FIGURE.read_bytes()
