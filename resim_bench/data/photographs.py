"""Stand-ins for photographs, where a measurement finds none: as large and as much to decode, and without a meaning.

A scene stands somewhere in noise whose amplitude falls with the frequency as that of photographs does; a JPEG of it has
0.5 bytes a pixel and decodes in 6 to 7 ns a pixel, near what a photograph takes.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from resim_bench.data import scenes

IMAGENET = VOC = 500, 375  # width and height, the most common ones
COCO = 640, 480
DISTINCT = 48  # images; what needs more gets some of them several times
TESTED = 16


def write_imagefolder(root: Path, images: int, classes: int) -> Path:
    """Write an ImageFolder of `images` files in `classes` classes, at least one in each; returns `root`."""
    drawn = photographs("pretrain", *IMAGENET, range(1))
    files = [scenes.jpeg(photograph.image) for photograph in itertools.islice(drawn, min(images, DISTINCT))]
    for number in range(max(images, classes)):
        folder = root / f"class{number % classes:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.jpg").write_bytes(files[number % len(files)])
    return root


def write_detection(root: Path, size: tuple[int, int], classes: Sequence[str]) -> Path:
    """Write images with objects of all `classes` as `VOCdevkit/` and, with their outlines, as `coco/`; returns `root`.

    Args:
        root: a folder, made where there is none.
        size: width and height of the images.
        classes: names.
    """
    enough = max(DISTINCT, -(-len(classes) // scenes.OBJECTS[0]))
    for stream, count in (("trainval", enough), ("test", TESTED)):
        drawn = itertools.islice(photographs(stream, *size, range(len(classes))), count)
        scenes.write_detection(root, stream, drawn, classes, outlines)
    return root


def photographs(stream: str, width: int, height: int, labels: range) -> Iterator[scenes.Scene]:
    """Scenes in noise, (height, width, 3), whose objects have the labels in turn, without an end."""
    in_turn = itertools.cycle(labels)
    for index in itertools.count():
        rng = np.random.default_rng((scenes.STREAMS.index(stream), index))
        scene = scenes.render(rng, min(width, height))
        x, y = (int(rng.integers(side - len(scene.image) + 1)) for side in (width, height))
        place = slice(y, y + len(scene.image)), slice(x, x + len(scene.image))
        image = 118 + 50 * _noise(rng, width, height)[..., None] + 15 * rng.uniform(-1, 1, 3)
        image[place] += scene.image.astype(np.float64) - scene.image.mean()
        objects = [_moved(item, next(in_turn), (height, width), place) for item in scene.objects]
        yield scenes.Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), objects)


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise of amplitude 1 / f^1.2 at frequency f, (height, width), of mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((height, width)))
    noise = np.fft.irfft2(white * frequency**-1.2, (height, width))
    return noise / noise.std()


def _moved(item: scenes.SceneObject, label: int, shape: tuple[int, int], place) -> scenes.SceneObject:
    """An object of a scene that became the part `place` of an image of `shape`."""
    mask = np.zeros(shape, bool)
    mask[place] = item.mask
    rows, columns = place
    x0, y0, x1, y1 = item.box
    box = (x0 + columns.start, y0 + rows.start, x1 + columns.start, y1 + rows.start)
    return scenes.SceneObject(label, box, mask, item.visible, item.truncated)


def outlines(mask: np.ndarray) -> list[list[float]]:
    """COCO's polygons [x0, y0, x1, y1, …] around the parts of a mask, (H, W) bool, whose holes they fill."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_KCOS)
    return [contour.ravel().astype(float).tolist() for contour in contours if len(contour) > 2]
