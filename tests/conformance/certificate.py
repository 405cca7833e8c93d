"""The certificate: what the suite computes beside what the original programs computed from the same input."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


class Quantity(NamedTuple):
    """One line: `difference()` is the largest between ours and the original's, relative where `unit` is empty."""

    name: str
    original: str
    inputs: str
    tolerance: float
    unit: str
    difference: Callable[[], float]


QUANTITIES: dict[str, Quantity] = {}


def quantity(name: str, original: str, inputs: str, tolerance: float, unit: str = ""):
    """Make a function a line of the certificate."""

    def decorate(function):
        QUANTITIES[function.__name__] = Quantity(name, original, inputs, tolerance, unit, function)
        return function

    return decorate


@functools.cache
def golden(name: str) -> dict[str, Tensor]:
    """The arrays of a file of golden data."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in parts of the largest value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    largest = theirs.double().abs().max().clamp(min=1e-12)
    return float((ours.detach().double() - theirs.double()).abs().max() / largest)


def apart(ours: Tensor, theirs: Tensor) -> int:
    """How many differ: all, where there is another number of them."""
    return int((ours != theirs).sum()) if ours.shape == theirs.shape else theirs.numel()


def distance(ours: Tensor, theirs: Tensor, scale: float | None = None) -> float:
    """Of two sets of rows, the largest distance from a row to the nearest of the other set, in parts of `scale`.

    The scale is the largest value, where none is given.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    apart = torch.cdist(ours.double(), theirs.double(), p=torch.inf)
    return float(max(apart.amin(0).max(), apart.amin(1).max()) / (scale or theirs.double().abs().max()))


WIDTHS = (39, 11, 43, 8, 13)


def _row(*cells: str) -> str:
    return "".join(f"{cell:{width}}" for cell, width in zip(cells, (*WIDTHS, 0), strict=True)).rstrip()


def header() -> str:
    """Of the table."""
    return _row("quantity", "original", "input", "apart", "allowed", "verdict") + "\n" + "─" * (sum(WIDTHS) + 7)


def line(quantity: Quantity, difference: float) -> str:
    """Of the table: differences are in parts of the largest value, where they have no unit."""
    apart, allowed = (f"{value:.0e}" if value else "0" for value in (difference, quantity.tolerance))
    verdict = "equal" if difference <= quantity.tolerance else "OTHER"
    return _row(*quantity[:3], apart, f"{allowed} {quantity.unit}", verdict)
