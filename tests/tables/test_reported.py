"""Every reported number, typed a second time from the summary, against the data files."""

import pytest

import tables

W_FULL = """
MoCo-v2  N/A     54.4 80.1 60.0
ReSim-C4 W16-S16 55.0 80.7 61.3
ReSim-C4 W48-S16 55.8 81.2 61.6
ReSim-C4 W48-S32 55.9 81.3 62.1
ReSim-C4 W64-S48 56.0 81.0 62.7
"""
W_FROZEN = """
MoCo-v2  N/A     47.1 75.4 50.6
ReSim-C4 W16-S16 48.7 76.0 53.2
ReSim-C4 W48-S16 49.5 76.7 54.1
ReSim-C4 W48-S32 50.0 77.2 55.0
ReSim-C4 W64-S48 49.7 77.2 54.3
"""
WINDOW_IDS = {
    "N/A": "in100-moco-v2",
    "W16-S16": "in100-resim-c4-w16-s16",
    "W48-S16": "in100-resim-c4-w48-s16",
    "W48-S32": "in100-resim-c4",
    "W64-S48": "in100-resim-c4-w64-s48",
}


def numbers(row):
    return [row.reported[metric] for metric in ("AP", "AP50", "AP75")]


def test_in100_voc():
    table = tables.load_tables()["in100-voc"]
    assert [(row.label, row.pretrain, row.transfer, *numbers(row)) for row in table.rows] == [
        ("random init.", "random", "voc-full", 33.8, 60.2, 33.1),
        ("supervised", "in100-supervised", "voc-full", 44.0, 72.8, 45.5),
        ("MoCo-v2", "in100-moco-v2", "voc-full", 54.4, 80.1, 60.0),
        ("ReSim-C4", "in100-resim-c4", "voc-full", 55.9, 81.3, 62.1),
    ]


@pytest.mark.parametrize(
    ("name", "transfer", "printed"),
    [("windows-full", "voc-full", W_FULL), ("windows-frozen", "voc-frozen", W_FROZEN)],
)
def test_windows(name, transfer, printed):
    expected = [line.split() for line in printed.split("\n") if line]
    rows = tables.load_tables()[name].rows
    assert [[row.label, row.window, *map(str, numbers(row))] for row in rows] == expected
    assert [row.pretrain for row in rows] == [WINDOW_IDS[line[1]] for line in expected]
    assert {row.transfer for row in rows} == {transfer}


def test_mini_reports_nothing_and_covers_both_settings():
    table = tables.load_tables()["mini"]
    assert not table.reports
    assert [row.experiment for row in table.rows] == [
        (pretrain, transfer)
        for transfer in ("mini-voc-full", "mini-voc-frozen")
        for pretrain in ("mini-random", "mini-moco-v2", "mini-resim-c4")
    ]


def test_order_sources_and_notes():
    loaded = tables.load_tables()
    assert list(loaded) == ["in100-voc", "windows-full", "windows-frozen", "mini"]
    for table in loaded.values():
        assert table.title
        assert table.source
        assert table.metrics == ["AP", "AP50", "AP75"]
        for row in table.rows:
            assert set(row.notes) <= set(table.notes)
            assert set(row.reported) in (set(), set(table.metrics))
            assert row.source or not table.reports
    notes = loaded["windows-full"].notes.values()
    assert any("Frozen backbone for finetuning" in note for note in notes), "the summary's odd heading is named"
