"""The same place in two views, on the page: the numbers are what was found, and no name is taken for HTML."""

import json
from datetime import UTC, datetime

import pytest

import tables
from resim_bench.correspondence import LETTERS, LEVELS, Backbone, packed
from tables.page import page, places
from tables.show.layout import one_decimal
from tests.tables.places import made
from tests.tables.test_page import HOSTILE, embedded, found, parsed, words

MADE = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


def shown(of):
    return page.page(tables.collect([]), [], "0" * 40, MADE, found=of)


def section(of):
    (one,) = found(parsed(shown(of)), "section", id="places")
    return one


@pytest.fixture(scope="module")
def usual():
    return made()


@pytest.fixture(scope="module")
def tree(usual):
    return parsed(shown(usual))


def test_how_often_the_maximum_is_right_is_counted_over_all_cells_that_have_a_place(usual, tree):
    (table,) = found(tree, "table", class_="often")
    rows = [[words(cell) for cell in row] for row in found(table, "tr")]
    assert rows[0] == ["maximum right, per cent", "scenes, 3 pairs", "caltech101, 3 pairs"]
    labels = ["MoCo-v2 mini-moco-v2, seed 1", "ReSim-C4 mini-resim-c4, seed 1", "random init. mini-random, seed 1"]
    assert [row[0] for row in rows[1:]] == [*labels, "by chance a cell of the key view at random"]
    for column, pairs in enumerate(usual.pairs.values(), 1):
        of = sum(10 * (9 - number) for number in range(3))
        for place in range(3):
            right = sum(cell for pair in pairs for cell in pair.found[place].right)
            assert 0 < right < of
            assert rows[1 + place][column] == f"{one_decimal(100 * right / of)} {right} of {of} cells"
        assert rows[4][column] == one_decimal(100 * (2.5 + 3.5 + 4.5) / of)
    kept = embedded(tree)["places"]
    assert [one["set"] for one in kept] == ["scenes", "caltech101"]
    assert kept[0]["backbones"][1] == {"id": "mini-resim-c4", "seed": 1}
    assert kept[1]["shares"] == [share._asdict() for share in places.shares(usual)["caltech101"]]


def test_the_script_is_given_what_was_found(usual, tree):
    (script,) = found(tree, "script", id="places-data")
    data = json.loads(script.text)
    assert data["names"] == ["MoCo-v2", "ReSim-C4", "random init."] and data["side"] == 14
    assert data["letters"] == LETTERS and data["levels"] == LEVELS and data["colours"] == usual.colours
    assert data["windows"] == [list(box) for box in usual.windows]
    pairs = [pair for of in usual.pairs.values() for pair in of]
    for given, pair in zip(data["pairs"], pairs, strict=True):
        assert given["places"] == [box and list(box) for box in pair.places] and pair.places[given["start"]]
        expected = [{"best": one.best, "right": one.right, "heat": one.heat} for one in pair.found]
        assert given["found"] == expected
    radios = [node.get("aria-label") for node in found(tree, "input", name="pair")]
    assert radios == [f"{name}, pair {number}" for name in usual.pairs for number in (1, 2, 3)]


def test_without_a_script_the_first_pair_shows_a_cell(usual, tree):
    (one,) = found(tree, "section", id="places")
    pair = usual.pairs["scenes"][0]
    cell = 6 * 14 + 6  # of the four in the middle the first
    assert found(one, "use", class_="best")[0].get("href") == f"#p-{'right' if pair.found[0].right[cell] else 'wrong'}"
    for key, of_backbone in zip(found(one, "figure", class_="key-view"), pair.found, strict=True):
        (sign,) = found(key, "use", class_="best")
        y, x = divmod(of_backbone.best[cell], 14)
        assert (float(sign.get("x")) + 0.9, float(sign.get("y")) + 0.9) == pytest.approx((x, y))
        frame = found(key, "rect", class_="frame")[0]
        assert [float(frame.get(name)) for name in ("x", "y", "width", "height")] == [7 - 1.25, 6 - 1.25, 2.5, 2.5]
        outcome = "right" if of_backbone.right[cell] else "wrong"
        assert words(key).endswith(f"{outcome} {sum(of_backbone.right)} of 90 right in this pair")
    assert "scenes/0.jpg: 90 of 196 cells have a place in the key view." in words(one)
    shaded = found(one, "path", class_="nowhere")[0].get("d")
    assert shaded.count("M") == 196 - 90
    assert shaded.startswith("M0 0H0.5V0.5H0z") and shaded.endswith("M12.5 12.5H14V14H12.5z")


def test_two_seeds_of_one_backbone_are_told_apart():
    seeds = Backbone("mini-moco-v2", 0), Backbone("mini-moco-v2", 7), Backbone("given-mine", 0)
    assert [name for name, _ in places.shown(made(seeds, pairs=1))["names"]] == [
        "mini-moco-v2, seed 0",
        "mini-moco-v2, seed 7",
        "given-mine",
    ]


def test_a_hostile_name_is_a_name():
    hostile = made((Backbone(HOSTILE, 0),), pairs=1, sets=(HOSTILE,), title=HOSTILE.replace("{{ 7 * 6 }}", ""))
    tree = parsed(shown(hostile))
    plain = parsed(shown(made((Backbone("plain", 0),), pairs=1, sets=("plain",))))
    assert [node.tag for node in tree.iter()] == [node.tag for node in plain.iter()]
    assert json.loads(found(tree, "script", id="places-data")[0].text)["names"] == [HOSTILE.replace("^", " ")]


def test_nothing_is_asked_of_anybody(tree):
    images = [node.get("src") for node in found(tree, "img") if node.get("src")]
    assert len(images) == 4 and all(address.startswith("data:image/jpeg;base64,") for address in images)
    uses = [node.get("href") for node in found(tree, "use")]
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert {use[1:] for use in uses} <= set(ids) and len(ids) == len(set(ids))
    script = found(tree, "script")[-1].text
    assert all(sign in script for sign in ("#p-right", "#p-wrong", "#p-nowhere")) and "p-nowhere" in ids
    assert not any(name == "style" or name.startswith("on") for node in tree.iter() for name in node.attrib)


def test_the_largest_stays_small():
    """Six backbones, two data sets of six pairs, views of 224 px of what compresses worst."""
    largest = made([Backbone(f"given-{number}", 0) for number in range(6)], pairs=6, size=128)
    assert len(shown(largest).encode()) < 4.6e6


def test_without_backbones_it_says_how_to_get_some():
    said = words(section(None))
    assert "No backbones to look into. make mini pre-trains" in said and "resim-bench report --backbone ID" in said
    assert embedded(parsed(shown(None)))["places"] == []


def test_an_odd_number_of_levels_is_packed():
    assert packed([1, 2, 7]) == LETTERS[10] + LETTERS[56]
    assert len({*LETTERS}) == LEVELS**2
