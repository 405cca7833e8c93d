"""What backbones take for the same place in two views of an image, as data: pretrain finds it, the page shows it."""

from typing import NamedTuple

LEVELS = 8  # of a similarity
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"  # LEVELS² of them: each holds two levels

Box = tuple[float, float, float, float]


class Backbone(NamedTuple):
    """A backbone that was asked: its id, and the seed of its pre-training."""

    id: str
    seed: int


class Found(NamedTuple):
    """What one backbone finds for the cells of a pair's query view, row by row.

    Attributes:
        best: for each, the cell of the key view that is most similar.
        right: whether that lies in the true place; False where there is none.
        heat: how similar each cell of the key view is, by `packed`.
    """

    best: list[int]
    right: list[bool]
    heat: str


class Pair(NamedTuple):
    """Two views of an image.

    Attributes:
        title: the image's name in its folder.
        query, key: the views, as JPEG files.
        places: where each window lies in the key view; None where either leaves its view.
        by_chance: how many maxima were right, on average, if each were drawn from all cells of the key view.
        found: by each backbone.
    """

    title: str
    query: bytes
    key: bytes
    places: list[Box | None]
    by_chance: float
    found: list[Found]


class Correspondence(NamedTuple):
    """Pairs of views, and where backbones find the one in the other.

    Attributes:
        backbones: in the order of `Pair.found`.
        side: cells of a row and of a column of C4.
        windows: for each cell of a query view what is looked for, itself and its neighbours. Boxes are in cells, each
            of which sits at its column and row.
        colours: of each level of a similarity, `#rrggbb`, from the least on.
        pairs: by the name of the images' data set.
    """

    backbones: list[Backbone]
    side: int
    windows: list[Box]
    colours: list[str]
    pairs: dict[str, list[Pair]]


def packed(levels: list[int]) -> str:
    """Numbers below LEVELS, two in a letter, the first of them the larger part of its number among LETTERS."""
    even = [*levels, 0][: len(levels) + len(levels) % 2]
    return "".join(LETTERS[LEVELS * first + second] for first, second in zip(even[::2], even[1::2], strict=True))
