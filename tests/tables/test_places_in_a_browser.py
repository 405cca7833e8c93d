"""The same place in two views, in a real browser: the pointer and the keys choose a cell, and what is found follows."""

import base64
import io
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

import tables
from tables.page import page
from tests.tables import browser
from tests.tables.places import COLOURS, levels, made

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium here: apt-get install chromium")

KEYS = "[...document.querySelectorAll('.key-view')]"
CHOSEN = (
    "[...document.querySelectorAll('[role=gridcell]')].findIndex(cell => cell.getAttribute('aria-selected') == 'true')"
)
FOCUSED = "[...document.querySelectorAll('[role=gridcell]')].indexOf(document.activeElement)"
NEAREST = [min(13, round((pixel + 0.5) / 2)) for pixel in range(28)]


@pytest.fixture(scope="module")
def found():
    return made()


@pytest.fixture(scope="module")
def file(tmp_path_factory, found):
    file = tmp_path_factory.mktemp("page") / "places.html"
    page.write(tables.collect([]), [], "0" * 40, datetime(2026, 3, 4, tzinfo=UTC), file, found=found)
    return file


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.started(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def middle_of(cell):
    """Where a cell of the query view sits in the window."""
    box = "document.querySelector('.query .view').getBoundingClientRect()"
    return f"(box => [box.x + {cell % 14} / 14 * box.width, box.y + {cell // 14} / 14 * box.height])({box})"


def shows(chromium, pair, cell):
    """Whether the picture is that of a pair and a cell: true place, maximum, outcome and similarities."""
    assert chromium.run(CHOSEN) == cell
    assert chromium.run("document.querySelector('.query .where').textContent") == (
        f"row {cell // 14 + 1}, column {cell % 14 + 1}"
    )
    place = pair.places[cell]
    for number, of_backbone in enumerate(pair.found):
        key = f"{KEYS}[{number}]"
        drawn = chromium.run(f"getComputedStyle({key}.querySelector('.true')).display") != "none"
        frame = f"{key}.querySelector('.frame').getAttribute(name)"
        assert drawn == (place is not None)
        if place:
            box = chromium.run(f"['x', 'y', 'width', 'height'].map(name => +{frame})")
            assert box == [place[0], place[1], place[2] - place[0], place[3] - place[1]]
        sign, x, y = chromium.run(
            f"(use => ['href', 'x', 'y'].map(name => use.getAttribute(name)))({key}.querySelector('.best'))"
        )
        outcome = "nowhere" if place is None else "right" if of_backbone.right[cell] else "wrong"
        best = of_backbone.best[cell]
        assert sign == f"#p-{outcome}"
        assert (float(x) + 0.9, float(y) + 0.9) == pytest.approx((best % 14, best // 14))
        said = chromium.run(f"{key}.querySelector('.outcome').textContent")
        assert said == ("no place to find" if place is None else outcome)
        drawn = chromium.run(f"{key}.querySelector('canvas').toDataURL()").removeprefix("data:image/png;base64,")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB"))
        of_cells = levels(14, number)[cell]
        for y, x in ((0, 0), (0, 27), (13, 14), (20, 3), (27, 27)):
            colour = COLOURS[of_cells[14 * NEAREST[y] + NEAREST[x]]]
            assert pixels[y, x].tolist() == [*bytes.fromhex(colour[1:])]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_pointer_chooses_a_cell(chromium, file, found, width, dark):
    chromium.open(file, width, dark=dark)
    assert chromium.said == [] and not any(address.startswith("http") for address in chromium.asked)
    assert chromium.run("document.documentElement.scrollWidth") == width, "nothing stands out at the side"
    first = found.pairs["scenes"][0]
    shows(chromium, first, 6 * 14 + 6)
    chromium.run("document.querySelector('.panels').scrollIntoView({block: 'center', behavior: 'instant'})")
    for cell in (3 * 14 + 4, 2 * 14 + 10, 0, 13 * 14 + 13):
        chromium.point(*(place + 1 for place in chromium.run(middle_of(cell))))
        chromium.wait(f"{CHOSEN} == {cell}")
        shows(chromium, first, cell)
    sizes = chromium.run(f"{KEYS}.map(key => key.querySelector('.view').getBoundingClientRect().bottom)")
    assert max(sizes) <= 900, "what is pointed at and what is found are seen at once"
    assert chromium.said == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_keys_choose_a_cell(chromium, file, found, width):
    chromium.open(file, width)
    first = found.pairs["scenes"][0]
    chromium.run("document.querySelector('.heats input').focus()")
    chromium.press("Tab")
    assert chromium.run(FOCUSED) == 6 * 14 + 6, "one stop for all of the grid"
    steps = {"ArrowRight": (6, 7), "ArrowDown": (7, 7), "Home": (7, 0), "ArrowLeft": (7, 0), "End": (7, 13)}
    for key, (row, column) in (steps | {"ArrowUp": (6, 13)}).items():
        chromium.press(key)
        assert chromium.run(FOCUSED) == 14 * row + column
        shows(chromium, first, 14 * row + column)
    label = chromium.run("document.activeElement.getAttribute('aria-label')")
    assert label == "row 7, column 14: no place in the key view"
    chromium.press("Home")
    for _ in range(3):
        chromium.press("ArrowRight")
    names = ("MoCo-v2", "ReSim-C4", "random init.")
    outcomes = ["right" if one.right[6 * 14 + 3] else "wrong" for one in first.found]
    said = ", ".join(f"{name} {outcome}" for name, outcome in zip(names, outcomes, strict=True))
    assert chromium.run("document.activeElement.getAttribute('aria-label')") == f"row 7, column 4: {said}"
    outside = "document.querySelector('.panels').contains(document.activeElement)"
    chromium.press("Tab")
    assert not chromium.run(outside) and chromium.said == []


def test_a_pair_is_chosen_and_similarities_are_left_out(chromium, file, found):
    chromium.open(file, 1280)
    chromium.click("[name=pair][value='4']")
    pair = found.pairs["caltech101"][1]
    there = sum(place is not None for place in pair.places)
    about = "document.querySelector('.about').textContent"
    assert chromium.run(about) == f"scenes/1.jpg: {there} of 196 cells have a place in the key view."
    shows(chromium, pair, 6 * 14 + 6)
    right = [sum(one.right) for one in pair.found]
    counts = chromium.run(f"{KEYS}.map(key => key.querySelector('.of-pair').textContent)")
    assert counts == [f"{count} of {there} right in this pair" for count in right]
    chromium.press("ArrowRight")
    chromium.wait("document.querySelector('[name=pair]:checked').value == '5'")
    shows(chromium, found.pairs["caltech101"][2], 6 * 14 + 6)
    chromium.click(".heats input")
    assert chromium.run("getComputedStyle(document.querySelector('.key-view canvas')).visibility") == "hidden"
    assert chromium.run("getComputedStyle(document.querySelector('.key-view img')).filter") == "none"
    assert chromium.said == []


def test_it_is_named_and_seen(chromium, file):
    """Roles and names are as a screen reader gets them."""
    chromium.open(file, 1280)
    tree = chromium.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    assert ("grid", "Cells of the query view") in named and ("heading", "The same place in two views") in named
    assert sum(role == "gridcell" and name.startswith("row ") for role, name in named) == 196
    assert ("radio", "scenes, pair 1") in named and ("image", "Key view, as ReSim-C4 sees it") in named
    assert not any(role == "image" and not name for role, name in named)
