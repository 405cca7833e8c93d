"""What backbones could have found, made up: for the tests of the page and of what it does in a browser."""

import itertools

import numpy as np

from resim_bench.correspondence import LEVELS, Backbone, Correspondence, Found, Pair, packed
from resim_bench.data.scenes import jpeg

COLOURS = [f"#{20 * level:02x}{30 * level:02x}{255 - 30 * level:02x}" for level in range(LEVELS)]
BACKBONES = Backbone("mini-moco-v2", 1), Backbone("mini-resim-c4", 1), Backbone("mini-random", 1)


def box(x, y, reach=1.5):
    return x - reach, y - reach, x + reach, y + reach


def made(backbones=BACKBONES, side=14, pairs=3, size=56, sets=("scenes", "caltech101"), title="scenes/{}.jpg"):
    """Pairs whose places lie one cell further to the right in each; similarities are `levels`."""
    cells = list(itertools.product(range(side), repeat=2))
    rng = np.random.default_rng(0)
    found = {}
    for name in sets:
        found[name] = []
        for number in range(pairs):
            there = [2 <= y < side - 2 and 2 <= x < side - 3 - number for y, x in cells]
            places = [box(x + 1 + number, y, 1.25) if one else None for (y, x), one in zip(cells, there, strict=True)]
            views = (jpeg(rng.integers(0, 255, (size, size, 3), np.uint8)) for _ in range(2))
            best = [rng.integers(side**2, size=side**2).tolist() for _ in backbones]
            right = [[one and bool(rng.integers(2)) for one in there] for _ in backbones]
            heats = [packed(levels(side, place).flatten().tolist()) for place in range(len(backbones))]
            of_each = [Found(*one) for one in zip(best, right, heats, strict=True)]
            found[name].append(Pair(title.format(number), *views, places, 2.5 + number, of_each))
    return Correspondence(list(backbones), side, [box(x, y) for y, x in cells], COLOURS, found)


def levels(side, backbone):
    """Of each cell of the query view those of the key view, `(side², side²)`."""
    cells = np.arange(side**2)
    return (cells[:, None] + 3 * cells + backbone) % LEVELS
