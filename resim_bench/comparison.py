"""What several detectors made of the same test images: data, from the room that judges them to the page that shows it.

Detections and objects are judged as docs/errors.md has it, at an IoU of .5.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

RIGHT = "right"  # of a detection; any other is wrong, and of a kind of `record.ERRORS`


class Object(NamedTuple):
    """What is to be found: its box (x0, y0, x1, y1) in pixels of the image, its class, and whether it need not be."""

    box: tuple[float, float, float, float]
    label: str
    ignored: bool


class Detection(NamedTuple):
    """What was found: box and class as of an object, score, kind; of one that is right the number of its object."""

    box: tuple[float, float, float, float]
    label: str
    score: float
    kind: str
    object: int | None


class Picture(NamedTuple):
    """A test image: its name, size (width, height) and pixels as a small JPEG; its objects; by method the detections.

    Detections are those that count, by falling score: of each method the best, as many as there are objects to find.
    """

    name: str
    size: tuple[int, int]
    jpeg: bytes
    objects: Sequence[Object]
    detections: Mapping[str, Sequence[Detection]]


class Counts(NamedTuple):
    """Of an image, or of many: objects to find, how many of them were found, and how many detections are wrong."""

    objects: int
    found: int
    wrong: int

    @property
    def missed(self) -> int:
        """Objects that were not found."""
        return self.objects - self.found


class Comparison(NamedTuple):
    """Several methods on the same test images.

    Attributes:
        pictures: those in which the most and the fewest objects that a method finds are the farthest apart, by falling
            difference; of one difference, those first in which the best method misses the fewest.
        totals: by method, over all test images.
        images: how many these are; differ: in how many the methods find another number of objects.
        lost: how many pictures are left out, as their files cannot be read any more.
    """

    pictures: Sequence[Picture]
    totals: Mapping[str, Counts]
    images: int
    differ: int
    lost: int = 0


def counts(picture: Picture, method: str) -> Counts:
    """Of a method in a picture."""
    found = picture.detections[method]
    right = sum(one.kind == RIGHT for one in found)
    return Counts(sum(not one.ignored for one in picture.objects), right, len(found) - right)
