"""Drawing: marks end up at their pixels, sheets stay in their width, and nothing is lost of what is odd."""

import numpy as np
import pytest
from PIL import Image

from resim_bench import drawing
from resim_bench.drawing import Mark, Panel, Sheet

SKY = np.array(drawing.SKY, np.uint8)


def drawn(panel, cell):
    """The pixels of a panel, and which of them have the colour of its marks."""
    pixels = np.array(drawing.render(panel, cell))
    return pixels, (pixels == SKY).all(axis=2)


@pytest.mark.parametrize(("size", "cell", "scale"), [((40, 30), (160, 130), 4), ((400, 300), (200, 200), 0.5)])
def test_an_outline_is_the_border_of_its_box(size, cell, scale):
    box = (0.1 * size[0], 0.2 * size[1], 0.6 * size[0], 0.9 * size[1])
    image = np.zeros((size[1], size[0], 3), np.uint8)
    pixels, coloured = drawn(Panel(image, marks=[Mark(box, colour=drawing.SKY, width=1)]), cell)
    assert pixels.shape == (size[1] * scale, size[0] * scale, 3)
    x0, y0, x1, y1 = (round(scale * value) for value in box)
    expected = np.zeros(pixels.shape[:2], bool)
    expected[y0:y1, x0:x1] = True
    expected[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = False
    assert np.array_equal(coloured, expected)


def test_lines_differ_by_more_than_colour():
    shares = []
    for line in drawing.LINES:
        _, coloured = drawn(
            Panel(np.zeros((99, 99, 3), np.uint8), marks=[Mark((9, 9, 90, 90), "", drawing.SKY, line)]), (99, 99)
        )
        assert coloured[9, 9] and not coloured[8].any() and not coloured[90].any()
        shares.append(coloured[9, 9:90].mean())
    assert shares[0] == 1 and 0.9 > shares[1] > 0.5 > shares[2] > 0.2


def test_a_mask_is_shaded_where_it_is():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 10:20] = True
    pixels, edge = drawn(
        Panel(np.zeros((40, 60, 3), np.uint8), marks=[Mark((80, 80, 90, 90), "", drawing.SKY, mask=mask)]), (120, 80)
    )
    assert np.array_equal(np.unique(np.nonzero(pixels.any(axis=2))[0]), np.arange(20, 60)), "at the panel's size"
    assert (
        edge[20, 40:80].all() and not edge[21:59, 41:79].any() and (pixels[21:59, 41:79] == (0.4 * SKY).round()).all()
    )


def test_labels_keep_away_from_each_other():
    marks = [Mark((100, 100, 160, 160), f"number {k}", drawing.SKY) for k in range(4)]
    blank = np.zeros((300, 300, 3), np.uint8)
    one = drawn(Panel(blank, marks=marks[:1]), (300, 300))[0].any(axis=2).sum()
    outline = drawn(Panel(blank, marks=[marks[0]._replace(text="")]), (300, 300))[0].any(axis=2).sum()
    four = drawn(Panel(blank, marks=marks), (300, 300))[0].any(axis=2).sum()
    assert four - outline > 3.5 * (one - outline)
    pixels, _ = drawn(Panel(blank, marks=[Mark((250, -40, 400, 500), "x" * 99, drawing.SKY)]), (300, 300))
    assert pixels.shape == (300, 300, 3) and pixels.any(), "neither box nor text needs to fit"


@pytest.mark.parametrize("box", [(np.nan,) * 4, (-np.inf, 0, np.inf, 9), (9, 9, 2, 2), (1e9, 1e9, 2e9, 2e9)])
def test_whatever_an_annotation_says_can_be_drawn(box):
    drawing.render(Panel(np.zeros((9, 9, 3), np.uint8), marks=[Mark(box, "a\nname", line="dotted")]), (90, 90))


def test_a_sheet_is_as_wide_as_it_may_be(tmp_path):
    rng = np.random.default_rng(0)
    panels = [Panel(np.full((*rng.integers(1, 900, 2), 3), 9, np.uint8), "a title " * 9) for _ in range(12)]
    rows = drawing.in_rows([*panels, Panel(panels[0].image, "x" * 500, notes=["y " * 99])], (640, 400))
    assert [panel for row in rows for panel in row][:12] == panels and len(rows) < 13
    drawing.write(tmp_path / "a.png", Sheet(["word " * 200, "é" * 300], rows, (640, 400)))
    with Image.open(tmp_path / "a.png") as sheet:
        assert 1000 < sheet.width <= drawing.WIDEST


def test_a_cell_of_a_map_is_around_its_pixel():
    values = np.arange(16.0).reshape(4, 4)
    picture = drawing.heat(values, 4, 16)
    colours = {tuple(picture[4 * i, 4 * j].tolist()): (i, j) for i in range(4) for j in range(4)}
    assert len(colours) == 16
    for y in range(16):
        for x in range(16):
            nearest = [min(range(4), key=lambda cell, at=at: abs(4 * cell - at - 0.5)) for at in (y, x)]
            assert colours[tuple(picture[y, x].tolist())] == tuple(nearest)
    brightness = drawing.heat(values, 4, 16).astype(int).sum(axis=2)
    assert brightness.min() == brightness[0, 0] and brightness.max() == brightness[15, 15]


@pytest.mark.parametrize(("count", "wanted"), [(0, 3), (1, 3), (3, 3), (10, 4), (10, 1)])
def test_images_are_taken_from_the_first_to_the_last(count, wanted):
    numbers = drawing.spread(count, wanted)
    assert len(set(numbers)) == len(numbers) == min(count, wanted)
    assert not numbers or (numbers[0] == 0 and (wanted == 1 or numbers[-1] == count - 1))
