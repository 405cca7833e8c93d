"""A level: a region loss on one map of the network, as a recipe's `model.levels` has it."""

from pretrain.encoders import HEADS
from resim_bench.settings import Schema, Whole, one_of


class Level(Schema):
    """A region loss on a map of the pyramid.

    Attributes:
        map_stride: pixels of a view that a cell of the map is apart from the next.
        window, stride: of the grid of windows, in pixels of a view.
        dim: of the features that are compared.
        anchor: where the grid begins: the `query` view's corner, that of the views' `overlap`; or `view`, a control,
            for one window, the whole of each view.
        negatives: `windows` (equation 2) or, as the release has them, `dense` (every position of all key maps) or
            `dense-group` (of those of the window's batch-norm group, of one GPU).
        reduction: of `pretrain.losses.window_weights`.
        border: whether a window may reach the key view's right and lower border, `closed`, or has to end before it,
            `open`.
        positives: `same`; or `permuted`, a control, which compares each window with another of its image.
    """

    map_stride: Whole
    window: Whole
    stride: Whole
    dim: Whole = 256
    anchor: one_of("query", "overlap", "view") = "query"
    negatives: one_of("windows", "dense", "dense-group") = "windows"
    reduction: one_of("image", "window", "group") = "image"
    border: one_of("closed", "open") = "closed"
    positives: one_of("same", "permuted") = "same"


class C4Level(Level):
    """A region loss on C4, which has a region head of its own, of `pretrain.encoders.HEADS`."""

    dim: Whole = 128
    head: one_of(*HEADS) = "conv3x3"


class Levels(Schema):
    """The region losses by the name of their map."""

    c4: C4Level = None
    p4: Level = None
    p3: Level = None

    def given(self) -> dict[str, Level]:
        """Those that there are."""
        return {source: level for source, level in self if level is not None}


def levels_of(settings: dict) -> dict[str, Level]:
    """The levels of a recipe, each with its defaults."""
    return {source: getattr(Levels.model_validate({source: level}), source) for source, level in settings.items()}


def stated(settings: dict) -> dict:
    """The settings of levels with those that they have by default; what is no level stays as it is, to be refused."""
    known = {source: field.annotation.model_fields for source, field in Levels.model_fields.items()}
    return {
        source: level | {k: f.default for k, f in known[source].items() if k not in level and not f.is_required()}
        if source in known and isinstance(level, dict)
        else level
        for source, level in settings.items()
    }
