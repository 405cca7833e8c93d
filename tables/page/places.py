"""The same place in two views: how often backbones find it, and what the page's script and its first picture need."""

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from resim_bench.correspondence import LETTERS, LEVELS, Backbone, Correspondence, Pair
from tables.page import charts
from tables.paper import load_tables
from tables.show.layout import one_decimal


class Share(NamedTuple):
    """How many maxima are right, of how many cells that have a place; the number by chance is a mean."""

    right: float
    of: int

    @property
    def percent(self) -> float:
        """The same in per cent."""
        return 100 * self.right / self.of


def shares(found: Correspondence) -> dict[str, list[Share]]:
    """By data set, over all of its pairs: of each backbone, and last by chance."""
    return {
        name: [_share(pairs, place) for place in range(len(found.backbones))] + [_by_chance(pairs)]
        for name, pairs in found.pairs.items()
    }


def _share(pairs: Sequence[Pair], backbone: int) -> Share:
    return Share(sum(sum(pair.found[backbone].right) for pair in pairs), _cells(pairs))


def _by_chance(pairs: Sequence[Pair]) -> Share:
    return Share(sum(pair.by_chance for pair in pairs), _cells(pairs))


def _cells(pairs: Sequence[Pair]) -> int:
    return sum(place is not None for pair in pairs for place in pair.places)


def shown(found: Correspondence) -> dict[str, Any]:
    """What stands where in places.html, and `data`, what places.js shows of all pairs."""
    names = _names(found.backbones)
    of_sets = shares(found)
    lines = [(label, f"{one.id}, seed {one.seed}") for (label, _), one in zip(names, found.backbones, strict=True)]
    lines.append(("by chance", "a cell of the key view at random"))
    rows = []
    for place, (label, about) in enumerate(lines):
        cells = [of_set[place] for of_set in of_sets.values()]
        rows.append({"label": label, "about": about, "cells": [_cell(share, place < len(names)) for share in cells]})
    return {
        "sets": {name: len(of) for name, of in found.pairs.items()},
        "rows": rows,
        "names": names,
        "side": found.side,
        "windows": found.windows,
        "first": _first(found),
        "numbers": [{"set": name, "backbones": found.backbones, "shares": of} for name, of in of_sets.items()],
        "data": {
            "names": [name for _, name in names],
            "side": found.side,
            "windows": found.windows,
            "colours": found.colours,
            "letters": LETTERS,
            "levels": LEVELS,
            "pairs": [_pair(pair, found.side) for pairs in found.pairs.values() for pair in pairs],
        },
    }


def _names(backbones: Sequence[Backbone]) -> list[tuple[str, str]]:
    """What backbones are called, as `inline` takes it and in plain words: as rows are, or by what tells them apart."""
    labels = {
        row.pretrain: row.label for table in reversed(load_tables().values()) for row in table.rows if row.pretrain
    }
    called = [labels.get(one.id, one.id) for one in backbones]
    told = [
        label if called.count(label) == 1 else f"{one.id}, seed {one.seed}"
        for label, one in zip(called, backbones, strict=True)
    ]
    return [(label, label.replace("^", " ")) for label in told]


def _cell(share: Share, counts: bool) -> dict[str, Any]:
    said = f"{share.right:,} of {share.of:,} cells" if counts else ""
    return {"percent": one_decimal(share.percent), "said": said, "bar": charts.bar(share.percent, 100.0)}


def _pair(pair: Pair, side: int) -> dict[str, Any]:
    return {
        "title": pair.title,
        "views": [_address(view) for view in (pair.query, pair.key)],
        "places": pair.places,
        "start": _start(pair, side),
        "nowhere": _nowhere(pair, side),
        "found": [
            {"best": one.best, "right": [int(right) for right in one.right], "heat": one.heat} for one in pair.found
        ],
    }


def _address(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _start(pair: Pair, side: int) -> int:
    """The cell that is marked first: of those that have a place the nearest to the middle."""
    middle = (side - 1) / 2
    there = [cell for cell, place in enumerate(pair.places) if place]
    return min(there, key=lambda cell: math.dist(divmod(cell, side), (middle, middle)))


def _nowhere(pair: Pair, side: int) -> str:
    """A path over the cells of the query view that have no place; a pixel belongs to the nearest cell."""
    ends = [0.0, *(cell + 0.5 for cell in range(side - 1)), float(side)]
    without = (_at(cell, side) for cell, place in enumerate(pair.places) if not place)
    return "".join(f"M{ends[x]:g} {ends[y]:g}H{ends[x + 1]:g}V{ends[y + 1]:g}H{ends[x]:g}z" for x, y in without)


def _first(found: Correspondence) -> dict[str, Any]:
    """The first pair with one cell marked, for who has no script."""
    pair = next(iter(found.pairs.values()))[0]
    cell = _start(pair, found.side)
    return _pair(pair, found.side) | {
        "cell": cell,
        "at": _at(cell, found.side),
        "place": pair.places[cell],
        "cells": _cells([pair]),
        "found": [
            {"at": _at(one.best[cell], found.side), "right": one.right[cell], "of_pair": sum(one.right)}
            for one in pair.found
        ],
    }


def _at(cell: int, side: int) -> tuple[int, int]:
    return cell % side, cell // side
