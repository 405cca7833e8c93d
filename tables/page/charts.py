"""Plain SVG: intervals, every seed a dot, bars and curves. Colours are the style sheet's; a mark tells as much."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tables.show.layout import one_decimal, plain

WIDTH = 360  # of a chart with text in it: a phone's, so that its letters are never smaller than they are here
STYLES = 6  # of lines, in the style sheet

Series = Mapping[str, Sequence[tuple[float, float]]]


def tag(name: str, *inside, **attributes) -> Markup:
    """An element; attributes and what is no markup are escaped. `_` in an attribute's name is a hyphen or, last, no."""
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _raised(_short(value)))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), given, Markup("").join(map(_raised, inside)))


def _raised(text: str) -> str:
    """What is no markup with its raised letters by Unicode: an SVG has no other."""
    return text if isinstance(text, Markup) else plain(text)


def _short(value) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _drawing(kind: str, width: float, height: float, label: str, *inside) -> Markup:
    """An SVG that is an image to a screen reader; without a label, decoration beside text that says the same."""
    told: dict[str, Any] = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return tag("svg", *inside, class_=kind, viewBox=f"0 0 {_short(float(width))} {_short(float(height))}", **told)


class Scale(NamedTuple):
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value is; one beyond the ends is there."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) around the values, the first and last at or beyond them."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= wanted)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def interval(found: tuple[float, float, float], reach: float, bound: float = 0.0, mark: str = "") -> Markup:
    """A mean and its interval (mean, low, high) on −reach … +reach, against zero and ± bound, where there is one.

    Without a mean only what it will be held against. An end beyond the reach is an arrow.
    """
    mean, low, high = found
    place = Scale(-reach, reach, 3.0, 97.0)
    parts = [tag("path", d="M3 7H97", class_="axis")]
    if bound:
        left = place(-bound)
        parts.append(
            tag("rect", x=left, y=1.5, width=place(bound) - left, height=11, class_="bound" if mean == mean else "open")
        )
    parts.append(tag("path", d="M50 0V14", class_="zero"))
    if mean == mean:
        parts.append(tag("path", d=f"M{_short(place(low))} 7H{_short(place(high))}", class_="reach"))
        for end, sign in ((low, -1), (high, 1)):
            x, beyond = place(end), sign * end > reach
            path = (
                f"M{_short(x - 3 * sign)} 4L{_short(x)} 7L{_short(x - 3 * sign)} 10" if beyond else f"M{_short(x)} 4V10"
            )
            parts.append(tag("path", d=path, class_="reach"))
        parts.append(_mark(place(mean), 7.0, mark))
    return _drawing("interval", 100, 14, "", *parts)


MARKS = {
    "below": "M{0} 10.5l-3.5 -6h7z",
    "above": "M{0} 3.5l-3.5 6h7z",
    "inconclusive": "M{0} 3.2l3.8 3.8l-3.8 3.8l-3.8 -3.8z",
}


def _mark(x: float, y: float, mark: str) -> Markup:
    shape = MARKS.get(mark)
    if shape is None:
        return tag("circle", cx=x, cy=y, r=3, class_="mean")
    return tag("path", d=shape.format(_short(x)), class_=f"mean {mark}")


class Strip(NamedTuple):
    """A row of `strips`: its values by seed; open dots where it deviates."""

    group: str
    label: str
    values: Mapping[int, float]
    deviates: bool = False


def strips(rows: Sequence[Strip], label: str, reach: Sequence[float]) -> Markup:
    """Every seed a dot, a row beneath another; a seed's dots are joined within a group, the mean is a line.

    Args:
        reach: the values that the scale has to hold.
    """
    marks = ticks(min(reach), max(reach))
    place = Scale(marks[0], marks[-1], 8.0, WIDTH - 8.0)
    y, group = 0.0, ""
    parts: list[Markup] = []
    joined: list[list[str]] = []
    lines: dict[int, list[str]] = {}
    for row in rows:
        if row.group != group:
            joined += lines.values()
            lines, group = {}, row.group
            y += 26
            parts.append(tag("text", row.group, x=0, y=y - 9, class_="group"))
        parts.append(tag("text", row.label, x=0, y=y + 10))
        y += 21
        for seed, value in sorted(row.values.items()):
            lines.setdefault(seed, []).append(f"{_short(place(value))} {_short(y)}")
            dot = tag("title", f"{row.label}, seed {seed}: {one_decimal(value)}")
            parts.append(tag("circle", dot, cx=place(value), cy=y, r=3.6, class_="open" if row.deviates else "dot"))
        if row.values:
            mean = place(sum(row.values.values()) / len(row.values))
            parts.append(tag("path", d=f"M{_short(mean)} {_short(y - 8)}v16", class_="mean"))
        y += 15
    joined += lines.values()
    grid = [tag("path", d=f"M{_short(place(mark))} 0V{_short(y)}", class_="grid") for mark in marks]
    paths = [tag("path", d="M" + "L".join(points), class_="joined") for points in joined if len(points) > 1]
    axis = [tag("text", f"{mark:g}", x=place(mark), y=y + 13, class_="tick") for mark in marks]
    return _drawing("chart", WIDTH, y + 18, label, *grid, *paths, *parts, *axis)


def bar(value: float, most: float) -> Markup:
    """A bar from zero, beside the number that it is of."""
    width = max(0.0, 100 * value / most) if most > 0 else 0.0
    return _drawing("bar", 100, 6, "", tag("rect", width=width, height=6))


def curves(series: Series, label: str, x_name: str, zero: bool = False) -> Markup:
    """Lines over x, told apart by colour and dashes; `legend` has their names.

    Args:
        zero: whether the scale has to hold it, and a line is drawn there.
    """
    points = [point for of_one in series.values() for point in of_one if all(map(math.isfinite, point))]
    xs, ys = zip(*points, strict=True)
    across, up = ticks(min(xs), max(xs), 4), ticks(min(ys + (0.0,) * zero), max(ys + (0.0,) * zero), 4)
    x = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, 44.0, WIDTH - 12.0)
    y = Scale(up[0], up[-1], 140.0, 8.0)
    parts = []
    for mark in up:
        kind = "zero" if zero and mark == 0 else "grid"
        parts.append(tag("path", d=f"M44 {_short(y(mark))}H{WIDTH - 12}", class_=kind))
        parts.append(tag("text", f"{mark:g}".replace("-", "−"), x=38, y=y(mark) + 4, class_="end"))
    for mark in across:
        if min(xs) <= mark <= max(xs):
            parts.append(
                tag("text", f"{mark:,g}" if mark < 1e6 else f"{mark / 1e6:g}M", x=x(mark), y=156, class_="tick")
            )
    parts.append(tag("text", x_name, x=WIDTH - 12, y=170, class_="end"))
    for number, of_one in enumerate(series.values()):
        path = "L".join(f"{_short(x(a))} {_short(y(b))}" for a, b in of_one if math.isfinite(a) and math.isfinite(b))
        if path:
            parts.append(tag("path", d=f"M{path}", class_=f"line l{number % STYLES}"))
    return _drawing("chart", WIDTH, 174, label, *parts)


def sample(style: int) -> Markup:
    """A piece of a line of `curves`, for its legend."""
    return _drawing("sample", 24, 8, "", tag("path", d="M0 4H24", class_=f"line l{style % STYLES}"))


def thinned(points: Sequence[tuple[float, float]], most: int = 160) -> list[tuple[float, float]]:
    """At most so many points: each the mean of as many neighbours; the last stays what it is."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return list(points)
    parts = [points[i : i + size] for i in range(0, len(points) - 1, size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means, points[-1]]
