"""Masks as COCO's compressed run-length codes: how many pixels of each colour in turn, down the columns, in letters."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as run_length

_LONGEST = 12  # letters of a number: 60 bits


def encode(masks: np.ndarray) -> list[bytes]:
    """The codes of masks (n, H, W) bool."""
    # Run lengths go down the columns, and OpenCV turns a mask six times as fast as numpy.
    return [run_length.encode(cv2.transpose(mask).T)["counts"] for mask in masks.view(np.uint8)]


def code_of(mask: list[list[float]] | dict, size: Sequence[int]) -> bytes:
    """The code of COCO's segmentation in an image of `size` (H, W): outlines, or runs as numbers or in letters."""
    if isinstance(mask, dict) and isinstance(mask["counts"], str):
        return mask["counts"].encode()
    code = run_length.frPyObjects(mask, *size)
    return (run_length.merge(code) if isinstance(code, list) else code)["counts"]


def as_coco(code: bytes, size: Sequence[int]) -> dict:
    """A code as pycocotools takes it, of an image of `size` (H, W)."""
    return {"size": [int(side) for side in size], "counts": code}


def run_lengths(codes: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The runs of all codes, one after another (R,), and where those of each begin and the last ends (n + 1,).

    A letter has five bits of a number, the lowest first, and one that says whether another follows; from the fourth
    run of a code on, the number is the difference to the last run but one.

    Raises:
        ValueError: one is no code.
    """
    letters = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    ends = np.cumsum([len(code) for code in codes], dtype=np.int64)
    goes_on = letters & 32 > 0
    if not len(letters):
        return letters, np.zeros(len(codes) + 1, np.int64)
    if letters.min() < 0 or letters.max() > 63 or goes_on[ends[ends > 0] - 1].any():
        raise ValueError("a letter is none of a code, or a code is cut short")
    starts = np.flatnonzero(np.append(True, ~goes_on[:-1]))
    length = np.diff(np.append(starts, len(letters)))
    if length.max() > _LONGEST:
        raise ValueError("a number is too long")
    place = 5 * (np.arange(len(letters)) - np.repeat(starts, length))
    values = np.add.reduceat((letters & 31) << place, starts)
    values -= (letters[starts + length - 1] & 16 > 0) * (np.int64(1) << 5 * length)

    first = np.searchsorted(starts, np.append(0, ends))
    position = np.arange(len(values)) - np.repeat(first[:-1], np.diff(first))
    for parity in (0, 1):  # every other run of a code builds on the one before it of these
        strand, fresh = values[parity::2], np.flatnonzero(position[parity::2] < 3)
        total = np.cumsum(strand)
        values[parity::2] = total - (total - strand)[np.repeat(fresh, np.diff(np.append(fresh, len(strand))))]
    return values, first


def cover(codes: Sequence[bytes], sizes: np.ndarray) -> bool:
    """Whether each is a code of as many pixels as its size (n, 2) has.

    pycocotools' own decoder reads and writes past what it was given where a code is broken.
    """
    pixels, some = np.prod(sizes, axis=1, dtype=np.int64), 10_000  # at a time: runs are many
    for start in range(0, len(codes), some):
        try:
            lengths, first = run_lengths(codes[start : start + some])
        except ValueError:
            return False
        wanted = pixels[start : start + some]
        owner = np.repeat(np.arange(len(wanted)), np.diff(first))
        if (lengths < 0).any() or (lengths > wanted[owner]).any():
            return False
        if (np.bincount(owner, lengths, len(wanted)) != wanted).any():
            return False
    return True
