"""Where backbones find the cells of one view of an image in another, for the page: the same pairs for all of them."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrain import show, train
from pretrain.data import TwoViews
from pretrain.encoders import load_trunk, trunk_maps
from pretrain.views import normalise
from resim_bench import drawing
from resim_bench.correspondence import LEVELS, Backbone, Correspondence, Found, Pair, packed
from resim_bench.data.scenes import jpeg
from resim_bench.errors import UserError
from resim_bench.harness.draws import DrawSampler

PAIRS = 6  # of a data set
SHARED = 0.25  # of the query view's cells, at least, have a place in the key view
TRIED = 200  # draws, of which most share as much
MOST, LARGEST = 6, 16  # backbones, and cells of a side of C4: what a page has room for
PHOTOGRAPHS = "photos-moco-v2"  # a recipe whose images are looked at by every backbone, too, where they are there


def find(files: Sequence[Path], count: int = PAIRS) -> Correspondence:
    """Where each backbone finds each cell of the query view's C4 in the key view.

    The views are those of the first backbone under one flip; the pairs the first draws of seed 0 that share enough,
    from each data set of the backbones' recipes and the photographs', where its folder is there.

    Args:
        files: of backbones.
        count: pairs of a data set.

    Raises:
        UserError: a file that is no backbone, too many, maps of different sizes or no images.
    """
    if len(files) > MOST:
        raise UserError(f"the page has room for {MOST} backbones, and {len(files)} are named: name fewer")
    trunks, provenances = zip(*map(load_trunk, files), strict=True)
    names = [
        Backbone(str(one.get("id", file)), one.get("seed", 0)) for file, one in zip(files, provenances, strict=True)
    ]
    data, views = zip(*map(show.seen_by, provenances), strict=True)
    side = _side([trunk.eval() for trunk in trunks], names, views[0]["size"])
    known = {one.root: one.name for one in [*data, train.load_recipe(PHOTOGRAPHS).dataset]}
    there = {root: name for root, name in known.items() if os.path.isdir(root)}
    if not there:
        raise UserError(f"there are no images to look for places in: put some at {' or '.join(known)}")
    pairs = {name: _pairs(TwoViews(root, name, views[0], seed=0), trunks, count) for root, name in there.items()}
    stride = views[0]["size"] / side
    windows = show.around(show.cells(side, stride), stride)
    return Correspondence(names, side, _in_cells(windows, stride), drawing.palette(LEVELS), pairs)


@torch.no_grad()
def _side(trunks: Sequence[nn.Module], names: Sequence[Backbone], size: int) -> int:
    """Cells of a side of every trunk's C4 in views of `size` pixels."""
    blank = normalise(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    sides = [trunk_maps(trunk, blank)["c4"].shape[-1] for trunk in trunks]
    for (id, _), side in zip(names, sides, strict=True):
        if side != sides[0]:
            raise UserError(
                f"{names[0].id} has {sides[0]} × {sides[0]} cells of C4 in views of {size} px, and {id} "
                f"{side} × {side}: give each a page of its own"
            )
    if sides[0] > LARGEST:
        raise UserError(
            f"{names[0].id} has {sides[0]} × {sides[0]} cells of C4 in views of {size} px, and the page has room for "
            f"{LARGEST} × {LARGEST}: leave it out"
        )
    return sides[0]


def _pairs(dataset: TwoViews, trunks: Sequence[nn.Module], count: int) -> list[Pair]:
    draws = itertools.islice(DrawSampler(dataset, seed=0, batch_size=1), TRIED)
    drawn = ((index, dataset[draw, index]) for draw, index in draws)
    # Which pairs these are does not depend on the trunk: all of them have the same cells.
    sharing = (
        (index, pair, first)
        for index, pair in drawn
        if (first := show.Places(trunks[0], pair)).valid.float().mean() >= SHARED
    )
    pairs = [
        _pair(show.shown_name(dataset.images, index), [first, *(show.Places(trunk, pair) for trunk in trunks[1:])])
        for index, pair, first in itertools.islice(sharing, count)
    ]
    if not pairs:
        raise UserError(f"no pair of views of {dataset.images.folder} shares enough of a place: give larger images")
    return pairs


def _pair(title: str, by_trunk: Sequence[show.Places]) -> Pair:
    first = by_trunk[0]
    return Pair(
        title,
        *(jpeg(view.numpy()) for view in first.views),
        places=[
            box if there else None
            for box, there in zip(_in_cells(first.key_boxes, first.stride), first.valid.tolist(), strict=True)
        ],
        by_chance=float(first.inside[first.valid].double().mean(1).sum()),
        found=[
            Found(one.best.tolist(), (one.right & one.valid).tolist(), packed(levels(one.similar).flatten().tolist()))
            for one in by_trunk
        ],
    )


def _in_cells(boxes: Tensor, stride: float) -> list[tuple[float, ...]]:
    return [tuple(round(value, 3) for value in box) for box in (boxes / stride).tolist()]


def levels(similar: Tensor) -> Tensor:
    """Each row of similarities `(n, n)` in LEVELS equal steps from its smallest to its largest, int64."""
    low, high = similar.aminmax(dim=1, keepdim=True)
    return ((similar - low) / (high - low).clamp(min=1e-12) * LEVELS).long().clamp(max=LEVELS - 1)
