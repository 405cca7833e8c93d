"""Test images in a real browser: they are seen under each row, they fit, and the keyboard opens the further ones."""

import pytest

import tables
from tables.page import page, pictures
from tests.tables import browser
from tests.tables.test_page import MADE
from tests.tables.test_pictures import METHODS, comparison, of_trial, picture

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium here: apt-get install chromium")

SEEN = (
    "[...document.querySelectorAll('.sight image, .sight use')]"
    ".filter(e => e.checkVisibility() && e.getBoundingClientRect().width > 100)"
)


@pytest.fixture
def file(tmp_path, make_record):
    records = [of_trial(make_record, method) for method in METHODS]
    frame = tables.collect(records)
    (group,) = pictures.groups(frame, [record["detections"]["sha256"] for record in records])
    shown = comparison(*(picture(number, size=(96, 64) if number % 2 else (64, 96)) for number in range(10)))
    page.write(frame, [], "0" * 40, MADE, tmp_path / "all.html", [(group, shown)])
    return tmp_path / "all.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.started(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_each_image_is_seen_under_each_row_and_fits(chromium, file, width, dark):
    chromium.open(file, width, dark=dark)
    assert chromium.said == [], "the page's policy lets its own images be shown"
    assert all(address.startswith(("data:", "about:", "file:")) for address in chromium.asked)
    assert chromium.run("document.documentElement.scrollWidth") == width, "nothing stands out at the side"
    assert chromium.run(f"{SEEN}.length") == (1 + len(METHODS)) * pictures.OPEN
    beside = "new Set([...document.querySelectorAll('#seen-0-1 .panel')].map(e => e.getBoundingClientRect().top)).size"
    assert chromium.run(beside) == (1 if width == 1280 else 2), "two beside each other on a phone"


def test_the_keyboard_opens_the_further_ones(chromium, file):
    chromium.open(file, 390)
    chromium.run("document.querySelector('.more > summary').focus()")
    chromium.press("Enter")
    chromium.wait(f"{SEEN}.length == {(1 + len(METHODS)) * 10}")
    assert chromium.said == []
