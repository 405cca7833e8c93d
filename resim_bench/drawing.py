"""Pictures: sheets of images with what is marked in them, to be read at 100 %.

What is drawn is data first, marks in the pixels of their image, so that it can be compared with where it is from; only
then is a sheet made of it, at most `WIDEST` pixels wide. Nothing is told by colour alone, and the colours are those of
Okabe and Ito ("Color Universal Design", 2008), which the colour-blind tell apart.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resim_bench import files
from resim_bench.errors import one_line

WIDEST = 2000  # px of a sheet
MARGIN, GAP = 16, 12  # px around a sheet and between its panels
NARROWEST, NOTES = 180, 290  # px of a panel with its title; of the text beside an image
SIZE, SMALL, LINE = 15, 12, 20  # px of text, of that in the middle of a box or where there is much, of a line
CROWDED = 12  # labels in an image
FARTHEST = 20_000  # px of a corner from a picture; PIL cannot count on without an end
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
WHITE, PAGE, GREY, BLACK = (255, 255, 255), (232, 232, 232), (170, 170, 170), (0, 0, 0)
LINES = {"solid": (1, 0), "dashed": (10, 7), "dotted": (3, 5)}  # px of a piece, and between two


class Mark(NamedTuple):
    """Something marked in an image.

    Attributes:
        box: `(x0, y0, x1, y1)` in continuous pixels of the image; it may go beyond.
        text: its label, if any.
        colour: RGB; line: of `LINES`; width: of the line, in pixels of the sheet.
        inside: whether the label is in the middle of the box, and not beside one of its corners.
        mask: `(H, W)` bool of the whole image, perhaps at another size; shaded.
    """

    box: Sequence[float]
    text: str = ""
    colour: tuple[int, int, int] = WHITE
    line: str = "solid"
    width: int = 3
    inside: bool = False
    mask: np.ndarray | None = None


class Panel(NamedTuple):
    """An image, `(H, W, 3)` uint8 RGB, with a title above it, marks in it, and lines of text on its right side."""

    image: np.ndarray
    title: str = ""
    marks: Sequence[Mark] = ()
    notes: Sequence[str] = ()


class Sheet(NamedTuple):
    """Lines of text above rows of panels, whose images get `cell` pixels, width and height, at most."""

    heading: Sequence[str]
    rows: Sequence[Sequence[Panel]]
    cell: tuple[int, int]


def in_rows(panels: Iterable[Panel], cell: tuple[int, int]) -> list[list[Panel]]:
    """Panels one after another, as many in a row as a sheet has room for."""
    rows: list[list[Panel]] = [[]]
    for panel in panels:
        if rows[-1] and _width([*rows[-1], panel], cell) > WIDEST - 2 * MARGIN:
            rows.append([])
        rows[-1].append(panel)
    return rows


def spread(count: int, wanted: int) -> list[int]:
    """Numbers below `count` as far apart as `wanted` of them can be; all, where there are no more."""
    wanted = min(count, wanted)
    return [round(place * (count - 1) / max(wanted - 1, 1)) for place in range(wanted)]


def numbered(number: int) -> tuple[int, int, int]:
    """A colour for the class or the like of this number."""
    return COLOURS[number % len(COLOURS)]


def heat(values: np.ndarray, stride: float, side: int) -> np.ndarray:
    """A square map of cells `(n, n)`, dark for its smallest and light for its largest, as an image `(side, side, 3)`.

    Args:
        stride: cell (i, j) sits at pixel (i stride, j stride); a pixel shows the cell that is nearest.
    """
    nearest = np.clip(np.rint((np.arange(side) + 0.5) / stride).astype(int), 0, len(values) - 1)
    low, high = values.min(), values.max()
    coloured = mpl.colormaps["cividis"]((values - low) / max(high - low, 1e-12))[..., :3]
    return (255 * coloured[nearest][:, nearest]).round().astype(np.uint8)


def palette(count: int) -> list[str]:
    """Colours of `heat`, `#rrggbb`, from the darkest to the lightest."""
    return [mpl.colors.to_hex(mpl.colormaps["cividis"](level / (count - 1))) for level in range(count)]


def write(file: Path, sheet: Sheet) -> None:
    """Put a sheet into a PNG; a reader finds the whole file or the one before."""
    with files.replacing(file) as stream:
        draw(sheet).save(stream, format="PNG")


def draw(sheet: Sheet) -> Image.Image:
    """The sheet as an image, as wide as its widest row."""
    rows = [_row(row, sheet.cell) for row in sheet.rows]
    width = max([4 * NARROWEST, *(row.width for row in rows)])
    lines = [line for text in sheet.heading for line in _wrapped(text, width)]
    top = MARGIN + LINE * len(lines) + GAP
    height = top + sum(row.height + GAP for row in rows) - GAP + MARGIN
    drawn = Image.new("RGB", (width + 2 * MARGIN, height), PAGE)
    _write_lines(drawn, (MARGIN, MARGIN), lines)
    for row in rows:
        drawn.paste(row, (MARGIN, top))
        top += row.height + GAP
    return drawn


def fitted(panel: Panel, cell: tuple[int, int]) -> tuple[int, int]:
    """Width and height that a panel's image is drawn at: what fits `cell`, and whole times where it is enlarged."""
    height, width = panel.image.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    scale = math.floor(scale) if scale >= 2 else scale
    return max(round(scale * width), 1), max(round(scale * height), 1)


def render(panel: Panel, cell: tuple[int, int]) -> Image.Image:
    """A panel's image with its marks, as large as `fitted` says."""
    size, (height, width) = fitted(panel, cell), panel.image.shape[:2]
    pixels = np.array(_resized(panel.image, size))
    for mark in panel.marks:
        if mark.mask is not None:
            _shade(pixels, np.array(_resized(mark.mask.astype(np.uint8) * 255, size)) > 127, mark.colour)
    image = Image.fromarray(pixels)
    brush = ImageDraw.Draw(image)
    places = [_pixels(mark.box, (size[0] / width, size[1] / height)) for mark in panel.marks]
    for mark, place in zip(panel.marks, places, strict=True):
        _outline(brush, place, mark)
    taken: list[tuple[int, int, int, int]] = []
    many = sum(bool(mark.text) for mark in panel.marks) > CROWDED
    for mark, place in zip(panel.marks, places, strict=True):
        if mark.text:
            taken.append(_label(brush, place, mark, image.size, taken, many))
    return image


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    enlarged = size[0] >= 2 * pixels.shape[1]
    how = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
    return Image.fromarray(pixels).resize(size, how)


def _pixels(box: Sequence[float], scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """The first column and row and the last ones of a box on what is `scale` as large; at least one pixel."""
    x0, y0, x1, y1 = (
        round(min(FARTHEST, max(-FARTHEST, float(value) * of_axis)))  # in this order NaN is far away
        for value, of_axis in zip(box, scale * 2, strict=True)
    )
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)


def _shade(pixels: np.ndarray, mask: np.ndarray, colour) -> None:
    """Tint what a mask `(H, W)` covers, and draw its edge."""
    pixels[mask] = (0.6 * pixels[mask] + 0.4 * np.array(colour)).round()
    edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    pixels[edge] = colour


def _outline(brush: ImageDraw.ImageDraw, place: tuple[int, int, int, int], mark: Mark) -> None:
    """A frame whose outermost pixels are the box's own; one that is not thin has a dark line around it."""
    x0, y0, x1, y1 = place
    inner = mark.width - 1
    pieces = []
    for start, stop in _pieces(x0, x1, mark.line):
        pieces += [(start, y0, stop, min(y0 + inner, y1)), (start, max(y1 - inner, y0), stop, y1)]
    for start, stop in _pieces(y0, y1, mark.line):
        pieces += [(x0, start, min(x0 + inner, x1), stop), (max(x1 - inner, x0), start, x1, stop)]
    for left, top, right, bottom in pieces if inner else ():
        brush.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=BLACK)
    for piece in pieces:
        brush.rectangle(piece, fill=mark.colour)


def _pieces(start: int, stop: int, line: str) -> list[tuple[int, int]]:
    length, between = LINES[line]
    if not between:
        return [(start, stop)]
    return [(place, min(place + length - 1, stop)) for place in range(start, stop + 1, length + between)]


def _label(brush: ImageDraw.ImageDraw, place, mark: Mark, size, taken, many: bool) -> tuple[int, int, int, int]:
    """Write a mark's text on its colour, where it hides the fewest of the labels before it; returns where."""
    font = _font(SMALL if mark.inside or many else SIZE)
    text = one_line(mark.text)
    width, height = round(font.getlength(text)) + 6, font.size + 5
    x0, y0, x1, y1 = place
    if mark.inside:
        corners = [((x0 + x1 + 1 - width) // 2, (y0 + y1 + 1 - height) // 2)]
    else:
        columns, rows = (x0, x1 + 1 - width), (y0 - height, y0, y1 + 1, y1 + 1 - height)
        corners = [(column, row) for row in rows for column in columns]
    last = max(size[0] - width, 0), max(size[1] - height, 0)
    boxes = []
    for x, y in corners:
        x, y = min(max(x, 0), last[0]), min(max(y, 0), last[1])
        boxes.append((x, y, x + width, y + height))
    best = min(boxes, key=lambda box: sum(_common(box, other) for other in taken))
    dark = np.dot(mark.colour, (0.299, 0.587, 0.114)) < 125
    brush.rectangle((best[0], best[1], best[2] - 1, best[3] - 1), fill=mark.colour, outline=BLACK)
    brush.text((best[0] + 3, best[1] + 1), text, font=font, fill=WHITE if dark else BLACK)
    return best


def _common(one, other) -> int:
    """The area that two boxes share."""
    sides = (min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1]))
    return max(sides[0], 0) * max(sides[1], 0)


def _slot(panel: Panel, cell: tuple[int, int]) -> int:
    """How wide a panel is with its text."""
    return max(fitted(panel, cell)[0] + (GAP + NOTES if panel.notes else 0), NARROWEST)


def _width(row: Sequence[Panel], cell: tuple[int, int]) -> int:
    return sum(_slot(panel, cell) for panel in row) + GAP * (len(row) - 1)


def _row(row: Sequence[Panel], cell: tuple[int, int]) -> Image.Image:
    """Panels side by side."""
    slots, images = [_slot(panel, cell) for panel in row], [render(panel, cell) for panel in row]
    titles = [_wrapped(panel.title, slot) for panel, slot in zip(row, slots, strict=True)]
    notes = [[line for text in panel.notes for line in _wrapped(text, NOTES)] for panel in row]
    above = LINE * max(map(len, titles))
    below = max(max(image.height, LINE * len(lines)) for image, lines in zip(images, notes, strict=True))
    drawn = Image.new("RGB", (_width(row, cell), above + below), PAGE)
    left = 0
    for image, slot, title, lines in zip(images, slots, titles, notes, strict=True):
        _write_lines(drawn, (left, above - LINE * len(title)), title)
        drawn.paste(image, (left, above))
        _write_lines(drawn, (left + image.width + GAP, above), lines)
        left += slot + GAP
    return drawn


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _write_lines(canvas: Image.Image, corner: tuple[int, int], lines: Iterable[str]) -> None:
    brush, (x, y) = ImageDraw.Draw(canvas), corner
    for number, line in enumerate(lines):
        brush.text((x, y + LINE * number), line, font=_font(SIZE), fill=BLACK)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken between words; a word that is longer goes on in the next line."""
    font, lines, line = _font(SIZE), [], ""
    for word in one_line(text).split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) > width and line:
            lines.append(line)
            longer = word
        while font.getlength(longer) > width:
            fits = next(n for n in range(len(longer), 0, -1) if n == 1 or font.getlength(longer[:n]) <= width)
            lines.append(longer[:fits])
            longer = longer[fits:]
        line = longer
    return [*lines, line] if line else lines
