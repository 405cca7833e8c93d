"""The page in a real browser: no error, details and filter by pointer and by keyboard, on a screen and on a phone."""

import subprocess
import sys

import pytest

from tests.tables import browser

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium here: apt-get install chromium")

SHOWN = "[...document.querySelectorAll('#holds tr[data-verdicts]')].filter(row => row.checkVisibility()).length"
OPEN = "(document.querySelector(':popover-open')?.id ?? '')"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of what is committed, as the command writes it."""
    folder = tmp_path_factory.mktemp("page")
    command = ["-m", "resim_bench.program", "report", str(folder / "all.html"), "--work-dir", str(folder)]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "all.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.started(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_a_word_and_fits(chromium, file, width, dark):
    chromium.open(file, width, dark=dark)
    assert chromium.said == [] and set(chromium.asked) <= {file.as_uri(), "about:blank", "data:,"}
    assert chromium.run("document.documentElement.scrollWidth") == width, "nothing stands out at the side"
    ground = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(21, 22, 21)" if dark else "rgb(255, 255, 255)")
    widths = chromium.run(
        "[...document.querySelectorAll('#in100-voc .cell')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(widths) <= width, "a table of three numbers needs no scrolling"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_cell_opens_and_closes_by_pointer_and_by_keyboard(chromium, file, width):
    chromium.open(file, width)
    cell = "button[popovertarget='in100-voc.3.AP']"
    chromium.click(cell)
    chromium.wait(f"{OPEN} == 'in100-voc.3.AP'")
    assert "make pretrain-in100" in chromium.run("document.querySelector(':popover-open').innerText")
    assert chromium.run("document.activeElement.innerText") == "Close"
    chromium.click(":popover-open .close")
    chromium.wait(f"{OPEN} == ''")
    chromium.run(f'document.querySelector("{cell}").focus()')
    chromium.press("Enter")
    chromium.wait(f"{OPEN} == 'in100-voc.3.AP' && location.hash == '#in100-voc.3.AP'")
    chromium.press("Escape")
    chromium.wait(f"{OPEN} == '' && location.hash == ''")
    assert chromium.run("document.activeElement.getAttribute('popovertarget')") == "in100-voc.3.AP", "where it was"
    assert chromium.said == []


def test_the_filter_filters_by_pointer_and_by_keyboard(chromium, file):
    chromium.open(file, 1280)
    rows = chromium.run(SHOWN)
    chromium.click("input[value='no checkpoint']")
    chromium.wait(f"{SHOWN} == 2")
    assert chromium.run("document.querySelector('.told').textContent") == "2 rows have a number that is no checkpoint"
    assert chromium.run("document.querySelector('#in100-voc .none').checkVisibility()")
    chromium.press("ArrowRight")  # from the last to the first
    chromium.wait(f"{SHOWN} == {rows}")
    assert chromium.run("document.activeElement.value") == ""


def test_a_table_is_copied_and_an_address_names_a_cell(chromium, file):
    chromium.open(file, 1280)
    chromium.run("document.querySelector('#in100-voc details').open = true")
    chromium.click("[data-copies='in100-voc-markdown-text']")
    chromium.wait("getSelection().toString().includes('| ReSim-C4 [2] | **55.9** (+1.5) |')")
    chromium.wait("document.querySelector('[data-copies=in100-voc-markdown-text]').textContent == 'Copied'")
    chromium.run("location.hash = 'mini.5.AP'")
    chromium.wait(f"{OPEN} == 'mini.5.AP'")
    assert chromium.said == []
