"""The same test images under each row of a table, those first in which the rows differ most: which, and how drawn.

The command line asks the room of detectors for what `groups` wants, and gives it to the page.
"""

import base64
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from resim_bench.comparison import RIGHT, Comparison, Counts, Picture, counts
from resim_bench.errors import one_line
from tables.page.charts import tag
from tables.paper import Table, load_tables
from tables.show import errors, layout, prose

NOMINAL = 168  # units of a picture's longer side: pixels that a phone has for it, so that letters are never smaller
LETTER, LINE = 9.0, 13.0  # units of a label: of each letter's width, of its height
OPEN = 8  # pictures that stand open, the others behind a click
BUDGET = 1_500_000  # characters of all pictures of a page
LONGEST = 60  # characters of a class or of a file's name
WORDS = {  # of a kind of error, as docs/errors.md has it
    "localisation": "wrong place",
    "classification": "wrong class",
    "both": "wrong place and class",
    "duplicate": "duplicate",
    "background": "background",
}
STYLES = ("ignored", "object", "missed", "right", "wrong")  # the later lies on top
KEY = {"right": "found", "wrong": "wrong detection", "missed": "missed", "ignored": "need not be found"}
Box = tuple[float, float, float, float]


class Group(NamedTuple):
    """Rows of a table that one protocol tests.

    Attributes:
        table: its id; title: the rows' group; transfer: the protocol's id.
        seeds: of the pre-training and of the transfer, the lowest that the most of the rows have detections of.
        files: by row the sha256 of its detections, of at least two rows or empty.
        without: rows that have records, but no such detections.
    """

    table: str
    title: str
    transfer: str
    seeds: tuple[int, int]
    files: Mapping[str, str]
    without: tuple[str, ...]


def groups(frame: pd.DataFrame, here: Collection[str]) -> list[Group]:
    """What can be compared in the tables that say what errors cost; a table's frozen backbones come first.

    Args:
        frame: made by `tables.collect`.
        here: sha256 of the detections that are in the work directory.
    """
    found = []
    for table in errors.with_costs(frame):
        lines = frame[(frame.table == table.id) & (frame.costed > 0)].drop_duplicates("row")
        tested = defaultdict(list)
        for line in lines.itertuples():
            if not line.deviations:
                tested[line.group, line.transfer].append(line)
        several = [(*of, rows) for of, rows in tested.items() if len(rows) > 1]
        # What a frozen backbone's detector finds is the backbone's work, a fine-tuned one's is the training's, too.
        several.sort(key=lambda of: "frozen" not in of[1])
        found += [_group(table, title, transfer, rows, here) for title, transfer, rows in several]
    return found


def _group(table: Table, title: str, transfer: str, rows: Sequence, here: Collection[str]) -> Group:
    kept = {
        layout.within_group(row): {seeds: one for seeds, one in row.detections.items() if one in here} for row in rows
    }
    trials = Counter(seeds for of_row in kept.values() for seeds in of_row)
    seeds = min(trials, key=lambda seeds: (-trials[seeds], seeds), default=(0, 0))
    files = {label: of_row[seeds] for label, of_row in kept.items() if seeds in of_row}
    if len(files) < 2:
        files = {}
    return Group(table.id, title, transfer, seeds, files, tuple(label for label in kept if label not in files))


Compared = Sequence[tuple[Group, Comparison | str]]  # a sentence, without a full stop, where nothing can be shown


def views(compared: Compared) -> dict[str, list[dict[str, Any]]]:
    """What the page shows, by table: each group's pictures, as many as the budget allows, or why there are none."""
    share = BUDGET // max(sum(isinstance(found, Comparison) for _, found in compared), 1)
    embedded: dict[bytes, str] = {}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, (group, comparison) in enumerate(compared):
        before = found[group.table]
        shown = {"id": f"seen-{number}", "title": group.title, "sentence": ""}
        if isinstance(comparison, Comparison):
            before.append(shown | _view(group, comparison, f"seen-{number}", share, embedded))
            continue
        sentence = f"{comparison[:1].upper()}{comparison[1:]}."
        if before and before[-1]["sentence"] == sentence:
            before[-1]["title"] += f" and {group.title}"
        else:
            before.append(shown | {"sentence": sentence})
    return dict(found)


def nothing(group: Group) -> str:
    """What is said of a group without detections to compare."""
    table = load_tables()[group.table]
    rows = [(table, row) for row in table.rows if row.transfer == group.transfer and row.pretrain]
    return (
        "test images side by side need the detections of at least two rows with the same seeds in the work directory, "
        f"where each transfer leaves its own: {' then '.join(prose.commands(rows))}"
    )


def _view(group: Group, comparison: Comparison, id: str, share: int, embedded: dict[bytes, str]) -> dict[str, Any]:
    shown, left = [], share
    for number, picture in enumerate(comparison.pictures, 1):
        one = _picture(picture, f"{id}-{number}", embedded)
        left -= one["weight"]
        if left < 0:
            break
        shown.append(one | {"number": number})
    return {
        "lead": _lead(group, comparison, len(shown)),
        "totals": comparison.totals,
        "images": comparison.images,
        "open": shown[:OPEN],
        "more": shown[OPEN:],
        "key": {words: _sample(style) for style, words in KEY.items()},
        "data": {
            "table": group.table,
            "group": group.title,
            "transfer": group.transfer,
            "seeds": group.seeds,
            "totals": comparison.totals,
            "images": [{"name": one["name"], "counts": one["counts"]} for one in shown],
        },
    }


def _lead(group: Group, comparison: Comparison, shown: int) -> str:
    pretrain, transfer = group.seeds
    seeds = f"seed {pretrain}" if pretrain == transfer else f"seeds {pretrain} and {transfer}"
    counting = (
        "Of each row and image as many detections count as there are objects to find, the best-scored; they are judged "
        "as above, at an IoU of .5 (docs/errors.md)."
    )
    if comparison.differ:
        sentences = [
            f"Of {seeds}, the {shown} of {comparison.images:,} test images in which the most and the fewest objects "
            f"that a row finds are the farthest apart. {counting} The images are chosen for their differences; this "
            "table is of all."
        ]
    else:
        sentences = [f"Of {seeds}, the rows find as many objects in each test image. {counting}"]
    if comparison.lost:
        sentences.append(f"Left out, as their files are gone or damaged: {layout.counted(comparison.lost, 'image')}.")
    if group.without:
        sentences.append(f"Without detections of that seed here: {', '.join(group.without)}.")
    return " ".join(sentences)


def _picture(picture: Picture, id: str, embedded: dict[bytes, str]) -> dict[str, Any]:
    """A test image: what is to be found, then each row's view of it."""
    letters = [_letters(number) for number in range(len(picture.objects))]
    image = _image(picture, embedded.setdefault(picture.jpeg, id), id)
    wanted = [
        ("ignored" if one.ignored else "object", letter, one.box)
        for one, letter in zip(picture.objects, letters, strict=True)
    ]
    says = [
        {"style": style, "tag": letter, "label": cut(one.label), "words": "(need not be found)" if one.ignored else ""}
        for (style, letter, _), one in zip(wanted, picture.objects, strict=True)
    ]
    of_rows = {method: counts(picture, method) for method in picture.detections}
    objects = sum(not one.ignored for one in picture.objects)
    to_find = layout.counted(objects, "object") if objects else "nothing"
    panels = [_panel(picture, "To find", to_find, f"Test image with {to_find} to find", image, wanted, says)]
    for method, of_row in of_rows.items():
        caption = f"{of_row.found} of {of_row.objects} found, {of_row.wrong} wrong"
        label = _told(method, of_row)
        use = tag("use", href=f"#{embedded[picture.jpeg]}-image")
        panels.append(_panel(picture, method, caption, label, use, *_marks(picture, method, letters)))
    return {
        "id": id,
        "name": cut(picture.name),
        "counts": of_rows,
        "panels": panels,
        "weight": sum(len(panel["svg"]) + 200 * len(panel["says"]) + 300 for panel in panels) + 500,
    }


def _told(method: str, of_row: Counts) -> str:
    """A row's view of a picture, for those who do not see it."""
    found = f"{of_row.found} of {layout.counted(of_row.objects, 'object')} found, {of_row.missed} missed"
    return f"{method}: {found}, {layout.counted(of_row.wrong, 'detection')} wrong"


def _image(picture: Picture, first: str, id: str) -> Markup:
    """The image, which stands in the page once, however many show it."""
    if first != id:
        return tag("use", href=f"#{first}-image")
    width, height = _scaled(picture)
    address = f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
    return tag("image", id=f"{id}-image", href=address, width=width, height=height, preserveAspectRatio="none")


def _marks(picture: Picture, method: str, letters: Sequence[str]) -> tuple[list, list[dict[str, Any]]]:
    """A row's boxes in a picture, and a line about each."""
    found = picture.detections[method]
    taken = {one.object for one in found if one.kind == RIGHT}
    marks, says = [], []
    for number, one in enumerate(found, 1):
        style = "right" if one.kind == RIGHT else "wrong"
        words = f"finds {letters[one.object]}" if one.object is not None else WORDS[one.kind]
        marks.append((style, str(number), one.box))
        says.append({"style": style, "tag": str(number), "label": cut(one.label), "words": f"{one.score:.2f}, {words}"})
    missed = [
        (letter, one.box)
        for number, (letter, one) in enumerate(zip(letters, picture.objects, strict=True))
        if number not in taken and not one.ignored
    ]
    marks += [("missed", letter, box) for letter, box in missed]
    if missed:
        says.append(
            {"style": "missed", "tag": ", ".join(letter for letter, _ in missed), "label": "", "words": "missed"}
        )
    return marks, says


def _panel(picture: Picture, title: str, caption: str, label: str, image: Markup, marks, says) -> dict[str, Any]:
    width, height = _scaled(picture)
    drawn = Markup("").join(_boxes(picture, marks))
    view = f"0 0 {width:.6g} {height:.6g}"
    svg = tag("svg", image, drawn, class_="sight", viewBox=view, role="img", aria_label=label)
    return {"title": title, "caption": caption, "svg": svg, "says": says}


def _scaled(picture: Picture) -> tuple[float, float]:
    scale = NOMINAL / max(picture.size)
    return picture.size[0] * scale, picture.size[1] * scale


def _boxes(picture: Picture, marks: Sequence[tuple[str, str, Box]]) -> Iterator[Markup]:
    """Boxes, a path for all of a style above one for its dark edge, then the labels on top."""
    scale = NOMINAL / max(picture.size)
    scaled = [
        (style, text, (scale * x0, scale * y0, scale * x1, scale * y1)) for style, text, (x0, y0, x1, y1) in marks
    ]
    for style in STYLES:
        path = "".join(
            f"M{_short(x0)} {_short(y0)}H{_short(x1)}V{_short(y1)}H{_short(x0)}z"
            for of, _, (x0, y0, x1, y1) in scaled
            if of == style
        )
        if path:
            yield tag("path", class_="edge", d=path)
            yield tag("path", class_=style, d=path)
    taken: list[Box] = []
    for _, text, box in scaled:
        taken.append(_free_place(box, LETTER * len(text), _scaled(picture), taken))
        yield tag("text", text, x=taken[-1][0], y=taken[-1][3] - 2)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _free_place(box: Box, width: float, size: tuple[float, float], taken: Sequence[Box]) -> Box:
    """Where a label hides the fewest of those before it: at a corner of its box, in the image."""
    x0, y0, x1, y1 = box
    places = []
    for y in (y0 - LINE, y0, y1, y1 - LINE):
        for x in (x0, x1 - width):
            left, top = min(max(x, 0.0), size[0] - width), min(max(y, 0.0), size[1] - LINE)
            places.append((left, top, left + width, top + LINE))
    return min(places, key=lambda place: sum(_common(place, other) for other in taken))


def _common(one: Box, other: Box) -> float:
    """The area that two places share."""
    across, down = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(across, 0.0) * max(down, 0.0)


def _sample(style: str) -> Markup:
    """A box of a style, for the key."""
    path = "M4 4H28V18H4z"
    boxes = [tag("path", class_=of, d=path) for of in ("edge", style)]
    return tag("svg", *boxes, class_="sight sample", viewBox="0 0 32 22", aria_hidden="true")


def _letters(number: int) -> str:
    """A name for an object: a to z, then aa."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)


def cut(text: str) -> str:
    """Text in one line, of a very long one the beginning."""
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
