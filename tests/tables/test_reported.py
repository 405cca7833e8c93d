"""Every reported number and printed difference, typed a second time from the summary, against the data files."""

import dataclasses
import re

import pytest

import tables
from resim_bench.experiments import ROOT, released, transfer_ids
from tables.paper import load_protocols, load_statements

VOC, COCO = ["AP", "AP50", "AP75"], ["box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75"]
PRINTED = {
    "in100-voc": """
        random init.  33.8 60.2 33.1
        supervised    44.0 72.8 45.5
        MoCo-v2       54.4 80.1 60.0
        ReSim-C4      55.9 (+1.5) 81.3 (+1.2) 62.1 (+2.1)
    """,
    "windows-full": """
        MoCo-v2            54.4 80.1 60.0
        ReSim-C4 W16-S16   55.0 80.7 61.3
        ReSim-C4 W48-S16   55.8 81.2 61.6
        ReSim-C4 W48-S32   55.9 81.3 62.1
        ReSim-C4 W64-S48   56.0 81.0 62.7
    """,
    "windows-frozen": """
        MoCo-v2            47.1 75.4 50.6
        ReSim-C4 W16-S16   48.7 76.0 53.2
        ReSim-C4 W48-S16   49.5 76.7 54.1
        ReSim-C4 W48-S32   50.0 77.2 55.0
        ReSim-C4 W64-S48   49.7 77.2 54.3
    """,
    "in1k-voc": """
        random init.  33.8 60.2 33.1
        supervised    53.5 81.3 58.8
        Jigsaw        48.9 (-4.6) 75.1 (-6.2) 52.9 (-5.9)
        Rotation      46.3 (-7.2) 72.5 (-8.8) 49.3 (-9.5)
        NPID++        52.3 (-1.2) 79.1 (-2.2) 56.9 (-1.9)
        SimCLR        51.5 (-2.0) 79.4 (-1.9) 55.6 (-3.2)
        PIRL          54.0 (+0.5) 80.7 (-0.6) 59.7 (+0.9)
        BoWNet        55.8 (+2.3) 81.3 (+0.0) 61.1 (+2.3)
        MoCo          55.9 (+2.4) 81.5 (+0.2) 62.6 (+3.8)
        MoCo-v2       57.0 (+3.5) 82.4 (+1.1) 63.6 (+4.8)
        SwAV          56.1 (+2.6) 82.6 (+1.3) 62.7 (+3.9)
        DenseCL       58.7 (+5.2) 82.8 (+1.5) 65.2 (+6.4)
        ReSim-C4      58.7 (+5.2) 83.1 (+1.8) 66.3 (+7.5)
        ReSim-FPN     59.2 (+5.7) 82.9 (+1.6) 65.9 (+7.1)
    """,
    "coco-1x": """
        random init           31.0 49.5 33.2 28.5 46.8 30.4
        supervised            38.9 59.6 42.7 35.4 56.5 38.1
        MoCo-v2               38.9 (+0.0) 59.2 (-0.4) 42.4 (-0.3) 35.4 (+0.0) 56.2 (-0.3) 37.8 (-0.3)
        VADeR                 39.2 (+0.3) 59.7 (+0.1) 42.7 (+0.0) 35.6 (+0.2) 56.7 (+0.2) 38.2 (+0.1)
        DenseCL^†             39.4 (+0.5) 59.9 (+0.3) 42.7 (+0.0) 35.6 (+0.2) 56.7 (+0.2) 38.2 (+0.1)
        ReSim-C4              39.3 (+0.4) 59.7 (+0.1) 43.1 (+0.4) 35.7 (+0.3) 56.7 (+0.2) 38.1 (+0.0)
        ReSim-FPN             39.5 (+0.6) 59.9 (+0.3) 43.3 (+0.6) 35.8 (+0.4) 57.0 (+0.5) 38.4 (+0.3)
        ReSim-FPN^T           39.8 (+0.9) 60.2 (+0.6) 43.5 (+0.8) 36.0 (+0.6) 57.1 (+0.6) 38.6 (+0.5)
        ReSim-FPN^T (400 ep)  40.3 (+1.4) 60.6 (+1.0) 44.2 (+1.5) 36.4 (+1.0) 57.5 (+1.0) 38.9 (+0.8)
    """,
    "coco-2x": """
        random init           36.7 56.7 40.0 33.7 53.8 35.9
        supervised            40.6 61.3 44.4 36.8 58.1 39.5
        MoCo-v2               40.9 (+0.3) 61.5 (+0.2) 44.6 (+0.2) 37.0 (+0.2) 58.4 (+0.3) 39.6 (+0.1)
        VADeR
        DenseCL^†             41.2 (+0.6) 61.9 (+0.6) 45.1 (+0.7) 37.3 (+0.5) 58.9 (+0.8) 40.1 (+0.6)
        ReSim-C4              41.1 (+0.5) 61.5 (+0.2) 44.8 (+0.4) 37.1 (+0.3) 58.6 (+0.5) 39.8 (+0.3)
        ReSim-FPN             41.4 (+0.8) 61.8 (+0.5) 45.4 (+1.0) 37.5 (+0.7) 59.1 (+1.0) 40.4 (+0.9)
        ReSim-FPN^T           41.4 (+0.8) 61.9 (+0.6) 45.4 (+1.0) 37.5 (+0.7) 59.1 (+1.0) 40.3 (+0.8)
        ReSim-FPN^T (400 ep)  41.9 (+1.3) 62.4 (+1.1) 45.9 (+1.5) 37.9 (+1.1) 59.4 (+1.3) 40.6 (+1.1)
    """,
}
NUMBER = re.compile(r"(?<!\S)(\d\d\.\d)(?: \(([+-]\d\.\d)\))?(?!\S)")
IDS = {
    "in100-voc": "random in100-supervised in100-moco-v2 in100-resim-c4",
    "windows-full": "in100-moco-v2 in100-resim-c4-w16-s16 in100-resim-c4-w48-s16 in100-resim-c4 in100-resim-c4-w64-s48",
    "in1k-voc": "random given-supervised given-jigsaw given-rotation given-npid-pp given-simclr given-pirl - given-moco"
    " in1k-moco-v2-200ep given-swav given-densecl in1k-resim-c4-200ep in1k-resim-fpn-200ep-release",
    "coco-1x": "random given-supervised in1k-moco-v2-200ep - given-densecl in1k-resim-c4-200ep"
    " in1k-resim-fpn-200ep-release in1k-resim-fpn-200ep-release in1k-resim-fpn-400ep-release",
}
IDS |= {"windows-frozen": IDS["windows-full"], "coco-2x": IDS["coco-1x"]}
RELEASED = {
    "in1k-moco-v2-200ep": "given-moco-v2",
    "in1k-resim-c4-200ep": "given-resim-c4",
    "in1k-resim-fpn-200ep-release": "given-resim-fpn-200ep",
    "in1k-resim-fpn-400ep-release": "given-resim-fpn-400ep",
}


def printed():
    """(table, row, label with window, metric, number, difference) for every number of the source."""
    for name, text in PRINTED.items():
        for number, line in enumerate(line.strip() for line in text.strip().splitlines()):
            label = NUMBER.split(line)[0].strip()
            metrics = COCO if name.startswith("coco") else VOC
            for metric, (value, delta) in zip(metrics, NUMBER.findall(line), strict=False):
                yield name, number, label, metric, float(value), float(delta) if delta else None


def test_all_186_numbers_stand_in_their_table_row_and_column():
    frame = tables.collect([])
    held = frame[frame.reported.notna()].set_index(["table", "row", "metric"]).reported
    loaded = tables.load_tables()
    typed = list(printed())
    assert len(typed) == len(held) == 186
    for name, number, label, metric, value, _ in typed:
        assert loaded[name].rows[number].name == label
        assert held[name, number, metric] == value, (name, label, metric)


def test_rows_are_the_papers():
    loaded = tables.load_tables()
    assert list(loaded)[:6] == list(PRINTED)
    assert [table.reports for table in loaded.values()] == [True] * 6 + [False] * (len(loaded) - 6)
    for name, text in PRINTED.items():
        assert len(loaded[name].rows) == len(text.strip().splitlines())
    assert [row.label for row in loaded["coco-1x"].rows] == [row.label for row in loaded["coco-2x"].rows]
    assert sum(len(table.rows) for table in list(loaded.values())[:5]) == 37, "1x and 2x are printed as the same rows"
    assert loaded["coco-2x"].beside == "coco-1x"


def test_every_printed_difference_is_the_difference_of_the_printed_numbers():
    frame = tables.collect([]).set_index(["table", "row", "metric"]).reported_delta
    for name, number, label, metric, _, delta in printed():
        ours = frame[name, number, metric]
        assert (ours != ours) if delta is None else round(ours, 6) == delta, (name, label, metric)


def test_every_row_of_the_paper_has_its_ids_or_says_why_not():
    loaded = tables.load_tables()
    for name, ids in IDS.items():
        rows = loaded[name].rows
        assert [row.pretrain or "-" for row in rows] == ids.split()
        assert [not row.pretrain for row in rows] == [bool(row.unavailable) for row in rows]
        assert [row.released for row in rows] == [RELEASED.get(row.pretrain, "") for row in rows]
        for row in rows:
            assert row.transfer
            for id in (row.pretrain, row.released):
                assert not id.startswith("given-") or id in released(), f"{id} is published nowhere"


def test_transfers():
    loaded = tables.load_tables()
    for name, transfer in [("in100-voc", "voc-full"), ("windows-full", "voc-full")]:
        assert {row.transfer for row in loaded[name].rows} == {transfer}
    others = {row.label: row.transfer for row in loaded["in1k-voc"].rows if row.transfer != "voc-full"}
    goyal19, pirl = dict.fromkeys(("Jigsaw", "Rotation"), "voc-goyal19"), dict.fromkeys(("NPID++", "PIRL"), "voc-pirl")
    assert others == goyal19 | pirl | {"SwAV": "voc-swav"}
    assert {row.transfer for row in loaded["windows-frozen"].rows} == {"voc-frozen"}
    for name in ("coco-1x", "coco-2x"):
        carried = [row.transfer == f"{name}-fpn-t" for row in loaded[name].rows]
        assert carried == [row.label.startswith("ReSim-FPN^T") for row in loaded[name].rows]
        assert {row.transfer for row in loaded[name].rows} == {name, f"{name}-fpn-t"}


def test_recipes_and_sources():
    loaded = tables.load_tables()
    published = {(name, row.label) for name, table in loaded.items() for row in table.rows if row.recipe == "published"}
    assert published == {
        *(("in1k-voc", label) for label in ("SimCLR", "MoCo", "MoCo-v2", "DenseCL", "ReSim-FPN")),
        *(
            (name, label)
            for name in ("coco-1x", "coco-2x")
            for label in ("MoCo-v2", "ReSim-FPN", "ReSim-FPN^T", "ReSim-FPN^T (400 ep)")
        ),
    }
    for table in list(loaded.values())[:6]:
        for number, row in enumerate(table.rows, 1):
            assert row.source.startswith(f"printed there, row {number}")
            assert row.recipe in ("published", "inferred", "ours")
            assert bool(row.why) == (row.recipe != "published") or row.unavailable
    ours = [(name, row.label) for name, table in loaded.items() for row in table.rows if row.recipe == "ours"]
    assert ours == [("in100-voc", "supervised")]
    of_five = [row.label for row in loaded["in1k-voc"].rows if row.paper_trials == 5]
    assert of_five == ["supervised", "MoCo", "MoCo-v2", "DenseCL"]
    assert all("README" in row.copied_from for row in loaded["in1k-voc"].rows if row.paper_trials == 5)


def test_each_of_the_186_numbers_has_its_protocol_its_evidence_and_its_source():
    sources = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "sources.md").read_text(), re.MULTILINE)
    audited = 0
    for table in list(tables.load_tables().values())[:6]:
        assert table.one in transfer_ids()
        for row in (row for row in table.rows if row.reported):
            assert row.protocol in ("same", "other", "unknown"), row.label
            assert row.evidence in ("read", "second-hand", "inferred"), row.label
            assert row.witness in sources, row.witness
            assert row.transfer in transfer_ids()
            alike = row.transfer in (table.one, f"{table.one}-fpn-t")
            assert alike == (row.protocol != "other"), row.label
            assert bool(row.elsewhere) == bool(row.elsewhere_from)
            assert row.elsewhere_from in ("", *sources)
            assert set(row.elsewhere) in (set(), set(table.metrics))
            audited += len(row.reported)
    assert audited == 186


def test_what_others_published_under_the_one_protocol():
    """OpenSelfSup's zoo, MoCo's and DenseCL's READMEs, and MLS of SwAV's weights."""
    found = {row.label: row.elsewhere["AP"] for row in tables.load_tables()["in1k-voc"].rows if row.elsewhere}
    assert found == {
        "random init.": 32.83,
        "supervised": 54.19,
        "Rotation": 55.52,
        "SimCLR": 51.54,
        "MoCo": 55.9,
        "MoCo-v2": 57.0,
        "SwAV": 45.1,
        "DenseCL": 58.7,
    }


def test_tables_close():
    loaded = tables.load_tables()
    orders = [table.order for table in loaded.values()]
    assert orders == sorted(set(orders))
    for table in loaded.values():
        assert table.title
        assert table.source
        assert table.metrics in (VOC, COCO, COCO[:3])
        assert [table.heading(metric) for metric in table.metrics]
        assert table.beside in ("", *loaded)
        for label in (table.delta_to, table.gain_over):
            assert not label or table.number(label) is not None
        assert all(table.number(label) is not None for label in table.differences)
        for row in table.rows:
            assert set(row.notes) <= set(table.notes)
            assert set(row.reported) in (set(), set(table.metrics))
            assert row.source or not table.reports


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("in100-voc", "supervised", "not the IN-1k supervised row"),
        ("coco-1x", "VADeR", "share four of their six numbers"),
        ("coco-1x", "DenseCL^†", "share four of their six numbers"),
        ("in1k-voc", "supervised", "54.19 / 81.58 / 59.80"),
        ("in1k-voc", "ReSim-C4", "ties DenseCL at AP 58.7"),
        ("windows-full", "ReSim-C4 W64-S48", "W64-S48 has the higher AP and AP75"),
        ("coco-2x", "ReSim-FPN^T", "mask AP75 40.3, below the 40.4"),
        ("coco-1x", "", "labels the mask AP75 column as a second mask AP"),
        ("windows-full", "", "under the heading 'Frozen backbone for finetuning on VOC'"),
    ],
)
def test_oddities_of_the_source_are_footnotes(name, row, words):
    table = tables.load_tables()[name]
    (note,) = [note for note, text in table.notes.items() if words in text]
    naming = [one.name for one in table.rows if note in one.notes]
    assert row in naming if row else not naming


LENGTHS = {"MoCo-v2": "mini-moco-v2", "ReSim-C4": "mini-resim-c4", "windows permuted": "mini-resim-c4-permuted"}


def test_tables_of_our_own():
    loaded = tables.load_tables()
    ours = "coco-frozen variants-voc variants-coco mini mini-coco mini-coco-2x mini-first mini-controls mini-choices"
    later = "mini-length mini-controls-first photos-cards photos-coco carry-over"
    assert list(loaded)[6:] == [*ours.split(), *later.split()]

    def pairs(name):
        return [(row.pretrain, row.transfer) for row in loaded[name].rows]

    resim = ["in1k-resim-c4-200ep", "in1k-resim-fpn-200ep-release"]
    weights = ["random-calibrated", "given-supervised", "in1k-moco-v2-200ep", *resim]
    assert pairs("coco-frozen") == [(id, f"coco-{x}-frozen") for x in ("1x", "2x") for id in weights]
    assert pairs("variants-voc") == [
        ("in100-moco-v2", "voc-frozen-res5"),
        ("in100-resim-c4", "voc-frozen-res5"),
        ("in1k-resim-fpn-200ep", "voc-full"),
    ]
    assert pairs("variants-coco") == [
        ("in1k-resim-fpn-200ep", "coco-1x"),
        *((id, f"coco-{x}-release") for x in ("1x", "2x") for id in ("in1k-moco-v2-200ep", resim[1])),
    ]
    backbones = [f"mini-{name}" for name in ("random", "moco-v2", "resim-c4", "resim-fpn")]
    assert pairs("mini-coco") == [
        *((id, "mini-coco-1x") for id in backbones),
        ("mini-resim-fpn", "mini-coco-1x-fpn-t"),
        *((id, "mini-coco-1x-frozen") for id in backbones),
    ]
    assert pairs("carry-over") == [(id, "photos-cards-frozen") for id in backbones[:3]]
    assert pairs("mini") == [
        (pretrain, transfer)
        for transfer in ("mini-voc-full", "mini-voc-frozen")
        for pretrain in ("mini-random", "mini-moco-v2", "mini-resim-c4")
    ]
    of_study, permuted, *others = [pretrain for pretrain, transfer in pairs("mini-controls")][1:]
    assert (of_study, permuted, len(others)) == ("mini-resim-c4", "mini-resim-c4-permuted", 3)
    assert {transfer for _, transfer in pairs("mini-controls")} == {"mini-voc-frozen"}
    assert pairs("mini-first") == pairs("mini")
    of_study = pairs("mini-controls")[:2]
    assert pairs("mini-choices")[:2] == of_study and len(pairs("mini-choices")) == 10
    lengths = {label: [row for row in loaded["mini-length"].rows if row.label == label] for label in LENGTHS}
    assert sum(map(len, lengths.values())) == len(loaded["mini-length"].rows)
    for label, id in LENGTHS.items():
        assert [row.group for row in lengths[label]] == [f"{epochs} epochs" for epochs in (4, 8, 16, 32)]
        assert [row.pretrain for row in lengths[label]] == [f"{id}-4ep", id, f"{id}-16ep", f"{id}-32ep"]
    assert {transfer for _, transfer in pairs("mini-length")} == {"mini-voc-frozen"}
    assert pairs("mini-controls-first") == [*pairs("mini-controls"), *pairs("mini-choices")[2:]]
    for table in loaded.values():
        if table.earlier:
            names = {row.name: (row.pretrain, row.transfer) for row in loaded[table.earlier].rows}
            assert all(names[row.name] == (row.pretrain, row.transfer) for row in table.rows), (
                "what stands behind a row"
            )
    for name, protocol in (("photos-cards", "photos-cards"), ("photos-coco", "photos-coco-person")):
        assert pairs(name) == [(p.replace("mini", "photos"), t.replace("mini-voc", protocol)) for p, t in pairs("mini")]


def test_claims_and_protocols_are_well_formed():
    loaded = tables.load_tables()
    names = {row.name for table in loaded.values() for row in table.rows}
    for claim in load_statements():
        assert {*claim.tables, claim.gain or "mini"} <= set(loaded)
        for pattern in (claim.above, claim.below):
            assert any(re.fullmatch(pattern, name) for name in names)
        assert all(dataclasses.asdict(claim)[field] for field in ("text", "source", "tables"))
    pinned = load_protocols()
    assert list(pinned) == ["pretrain", "transfer"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for side in pinned.values() for digest in side.values())
