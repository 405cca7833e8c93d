"""Generated scenes: images small enough for two cores that still ask the paper's question.

An image holds several objects of several classes at different scales, partly hiding each other, so that two crops
of it often show different things: what instance discrimination confuses and region similarity need not. Classes
differ by shape alone; colour, texture, rotation and background are drawn independently of the class. Every image is
a function of (seed, stream, index): the same seed gives the same bytes, a longer set begins with the shorter one, and
the streams (pre-training, detection training, test) share no random number. Textures are float32 from OpenCV and numpy,
so another kind of processor may round a pixel to the next grey level: six of 4,000 images, without Intel's library and
without FMA.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from resim_bench import files
from resim_bench.errors import UserError

VERSION = 2  # raise it with any change that changes an image or an annotation: `write` compares it

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
STREAMS = ("pretrain", "trainval", "test")
SPLITS = {"trainval": "train", "test": "val"}  # what COCO calls the streams of detection
SIZE = 96  # pixels of a side: a view of 56 px shows objects in about the scale that a detector meets
STREAM_LENGTH = 100_000  # an image's number in VOC and COCO is this times its stream, plus its index

OBJECTS = (3, 7)  # fewest and most in a scene
SCALE = (1 / 8, 1 / 2)  # an object's unrotated extent as a fraction of the image's side
MIN_VISIBLE = 0.25  # the fraction of its area that every object shows at least
DIFFICULT_BELOW = 0.4  # the fraction of its area under which an object counts as difficult


@dataclass(frozen=True)
class SceneObject:
    """One object as far as it can be seen."""

    label: int  # index into CLASSES
    box: tuple[float, float, float, float]  # extent of `mask`: (x0, y0, x1, y1) in continuous pixels
    mask: np.ndarray  # the visible part, (H, W) bool
    visible: float  # the visible fraction of the whole object's area
    truncated: bool  # the image's border cuts the object

    @property
    def difficult(self) -> bool:
        """Whether so little is visible that a detector is not blamed for missing it."""
        return self.visible < DIFFICULT_BELOW


@dataclass(frozen=True)
class Scene:
    """An image, (H, W, 3) uint8 RGB, and its objects from the back to the front."""

    image: np.ndarray
    objects: list[SceneObject]


@dataclass(frozen=True)
class _Sprite:
    """An object before it is painted."""

    label: int
    alpha: np.ndarray  # how much of each pixel it covers, (h, w) float32
    window: tuple[slice, slice]  # the part of the image that `alpha` is for: rows, columns
    area: int  # pixels that the whole object covers by half or more, those outside of the image included

    @property
    def solid(self) -> np.ndarray:
        """The pixels that count as the object's, (h, w) bool."""
        return self.alpha >= 0.5


def _regular(corners: int, *radii: float) -> np.ndarray:
    """Return a polygon (corners, 2) around the origin whose corners lie at the given radii in turn."""
    angle = 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(radii, corners)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


_HALF_CROSS = np.array([(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3)]) / 3
_OUTLINES: dict[str, list[np.ndarray]] = {  # contours of half-extent about 1; a second contour is a hole
    "circle": [_regular(48, 1.0)],
    "square": [_regular(4, 1.2)],
    "triangle": [_regular(3, 1.2)],
    "star": [_regular(10, 1.2, 0.5)],
    "ring": [_regular(48, 1.0), _regular(48, 0.55)],
    "cross": [np.concatenate([_HALF_CROSS, -_HALF_CROSS])],
}


def _sprite(rng: np.random.Generator, size: int) -> _Sprite:
    """Draw a class, a scale, a pose and a place: anti-aliased by drawing large and averaging."""
    label = int(rng.integers(len(CLASSES)))
    half = size * np.exp(rng.uniform(*np.log(SCALE))) / 2
    stretch, angle = np.exp(rng.uniform(-0.1, 0.1)), rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(0.7 * half, size - 0.7 * half, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    pose = half * np.array([[cos, -sin], [sin, cos]]) @ np.diag([stretch, 1 / stretch])

    reach = int(np.ceil(1.4 * half)) + 1
    corner = np.floor(centre).astype(int) - reach
    large = np.zeros((8 * reach, 8 * reach), np.uint8)  # four times finer
    contours = [4 * (outline @ pose.T + centre - corner) - 0.5 for outline in _OUTLINES[CLASSES[label]]]
    # cv2 puts the centre of pixel i at i, a continuous frame at i + 1/2; 8 fractional bits keep the sub-pixel place.
    cv2.fillPoly(large, [np.rint(c * 256).astype(np.int32) for c in contours], 255, shift=8)
    alpha = cv2.resize(large, (2 * reach, 2 * reach), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    start, stop = np.maximum(corner, 0), np.minimum(corner + 2 * reach, size)
    columns, rows = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
    (left, top), (right, bottom) = start - corner, stop - corner
    return _Sprite(label, alpha[top:bottom, left:right], (rows, columns), np.count_nonzero(alpha >= 0.5))


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return one of several patterns, (size, size) float32 of about [-1, 1]."""
    kind = rng.choice(("plain", "gradient", "stripes", "checks", "blotches", "grain"))
    if kind == "plain":
        return np.zeros((size, size), np.float32)
    if kind == "grain":
        return cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (3, 3), 0)
    if kind == "blotches":
        cells = size // rng.integers(6, 17) + 2
        coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(size, dtype=np.float32) - size / 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = cos * x + sin * x[:, None], cos * x[:, None] - sin * x
    if kind == "gradient":
        return along / (size / 2)
    pace = np.float32(2 * np.pi / rng.uniform(5, 16))
    wave = np.sin(along * pace)
    return wave if kind == "stripes" else np.tanh(3 * wave * np.sin(across * pace))


def _paint(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Return a tinted texture of at most about `contrast` grey levels, (size, size, 3) float32 around 0."""
    return _texture(rng, size)[..., None] * (contrast * rng.uniform(0.4, 1, 3)).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a quiet background, (size, size, 3) float32: a dull colour, gradients across it, a faint texture."""
    colour = rng.uniform(60, 195) + rng.uniform(-45, 45, 3)
    ramps = np.linspace(-0.5, 0.5, size)[:, None] * rng.uniform(-30, 30, (2, 1, 3))
    return (colour + ramps[0] + ramps[1][:, None]).astype(np.float32) + _paint(rng, size, 14)


def _contrasting(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """Return the one of four random colours, (3,) float32, that stands out most from the colour `behind` (3,)."""
    colours = rng.uniform(15, 240, (4, 3)).astype(np.float32)
    return colours[np.argmax(np.square(colours - behind).sum(1))]


def render(rng: np.random.Generator, size: int) -> Scene:
    """Draw one scene of `size` × `size` pixels with 3 to 7 objects, each at least `MIN_VISIBLE` visible.

    A place that would hide an object further is drawn again; a crowded scene gives up on more than three objects.
    """
    image = _background(rng, size)
    front = np.full((size, size), -1, np.int8)  # the object each pixel shows
    sprites: list[_Sprite] = []
    wanted = rng.integers(OBJECTS[0], OBJECTS[1] + 1)
    attempts = itertools.count()
    while len(sprites) < OBJECTS[0] or (len(sprites) < wanted and next(attempts) < 30):
        sprite = _sprite(rng, size)
        changed = front.copy()
        changed[sprite.window][sprite.solid] = len(sprites)
        if _visible(changed, [*sprites, sprite]).min() < MIN_VISIBLE:
            continue
        front = changed
        sprites.append(sprite)
        behind, cover = image[sprite.window], sprite.alpha[..., None]
        colour = _contrasting(rng, behind[sprite.solid].mean(0))
        paint = colour + _paint(rng, max(cover.shape), 30)[: len(cover), : cover.shape[1]]
        behind += cover * (paint - behind)
    image += np.float32(rng.uniform(2, 6)) * rng.standard_normal(image.shape, np.float32)
    visible = _visible(front, sprites)
    objects = [_object(sprites[i], front == i, float(visible[i])) for i in range(len(sprites))]
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), objects)


def _visible(front: np.ndarray, sprites: list[_Sprite]) -> np.ndarray:
    """Return the fraction of each whole object that `front` (H, W) shows, (len(sprites),) float64."""
    shown = np.bincount(front.ravel() + 1, minlength=len(sprites) + 1)[1:]
    return shown / [sprite.area for sprite in sprites]


def _object(sprite: _Sprite, mask: np.ndarray, visible: float) -> SceneObject:
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    box = (float(x[0]), float(y[0]), float(x[-1] + 1), float(y[-1] + 1))
    return SceneObject(sprite.label, box, mask, visible, np.count_nonzero(sprite.solid) < sprite.area)


def scene(seed: int, stream: str, index: int, size: int = SIZE) -> Scene:
    """Return image `index` of one of the `STREAMS`: a function of its arguments and of nothing else."""
    return render(np.random.default_rng((seed, STREAMS.index(stream), index)), size)


def write_sheet(file: Path, rows: int = 3, columns: int = 6) -> None:
    """Write the first pre-training scenes of seed 0 side by side, as one PNG."""
    scenes = [scene(0, "pretrain", index).image for index in range(rows * columns)]
    sheet = np.concatenate([np.concatenate(scenes[i * columns : (i + 1) * columns], axis=1) for i in range(rows)])
    with files.replacing(file) as stream:
        stream.write(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


def write(
    root: Path,
    *,
    seed: int = 0,
    pretrain_images: int = 4000,
    train_images: int = 400,
    test_images: int = 200,
    size: int = SIZE,
) -> Path:
    """Write scenes of `size` × `size` pixels under `root` in the layouts of the real data sets, and return `root`.

    `imagefolder/` is for pre-training, `VOCdevkit/` and `coco/` hold the same detection images. The folder appears
    complete or not at all. If it already holds these very scenes, nothing is done.

    Raises:
        UserError: `root` holds something else, or another process writes it.
        ValueError: an argument is out of range.
    """
    root = Path(root)
    counts = dict(zip(STREAMS, (pretrain_images, train_images, test_images), strict=True))
    if seed < 0 or size < 64 or not all(1 <= count <= STREAM_LENGTH for count in counts.values()):
        raise ValueError(f"scenes need a seed from 0, a size from 64 and 1 to {STREAM_LENGTH} images of each kind")

    def fill(building: Path) -> None:
        _write_imagefolder(building / "imagefolder", seed, pretrain_images, size)
        for stream in SPLITS:
            drawn = (scene(seed, stream, index, size) for index in range(counts[stream]))
            write_detection(building, stream, drawn, CLASSES, polygons)

    return _build(root, {"seed": seed, "size": size, "images": counts}, fill)


def write_objects(
    root: Path, *, seed: int = 0, train_images: int = 400, test_images: int = 200, size: int = SIZE
) -> Path:
    """Write the objects of the detection scenes under `root`, cut out by their boxes: `{train,val}/<class>/…png`.

    Returns `root`; see `write` for what else holds.
    """

    def fill(building: Path) -> None:
        for stream, split, count in (("trainval", "train", train_images), ("test", "val", test_images)):
            for name in CLASSES:
                (building / split / name).mkdir(parents=True)
            for index in range(count):
                drawn = scene(seed, stream, index, size)
                for number, item in enumerate(drawn.objects):
                    x0, y0, x1, y1 = map(int, item.box)
                    place = building / split / CLASSES[item.label] / f"{index:06d}-{number}.png"
                    place.write_bytes(cv2.imencode(".png", drawn.image[y0:y1, x0:x1, ::-1])[1].tobytes())

    counts = {"trainval": train_images, "test": test_images}
    return _build(root, {"seed": seed, "size": size, "objects_of": counts}, fill)


def _build(root: Path, recipe: dict, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write into a new folder that then becomes `root`, unless `root` holds what `recipe` says already."""
    root = Path(root)
    said = json.dumps({"generator": VERSION} | recipe, indent=1) + "\n"
    if root.exists():
        if (root / "scenes.json").is_file() and (root / "scenes.json").read_bytes() == said.encode():
            files.clear_scratch(root)
            return root
        raise UserError(f"{root} holds something other than these scenes: remove it, and they are generated anew")
    with files.scratch(root) as scratch:
        building = scratch / "scenes"
        building.mkdir()
        fill(building)
        (building / "scenes.json").write_text(said)
        building.rename(root)
    return root


def _write_imagefolder(folder: Path, seed: int, count: int, size: int) -> None:
    """Write the pre-training images, in one class: a scene of several classes has no label that would be true."""
    images = folder / "train" / "scenes"
    images.mkdir(parents=True)
    for index in range(count):
        (images / f"{index:06d}.jpg").write_bytes(jpeg(scene(seed, "pretrain", index, size).image))


def write_detection(
    root: Path, stream: str, drawn: Iterable[Scene], classes: Sequence[str], segmentation: Callable[[np.ndarray], Any]
) -> None:
    """Write scenes as the VOC2007 set `stream` and as the COCO 2017 split of `SPLITS`, with the same JPEG files.

    Args:
        root: the folder of both, `VOCdevkit/` and `coco/`.
        stream: `trainval` or `test`.
        drawn: the scenes.
        classes: names by label.
        segmentation: COCO's entry for a mask, (H, W) bool.
    """
    split = SPLITS[stream]
    voc, coco = root / "VOCdevkit" / "VOC2007", root / "coco"
    lists = voc / "ImageSets" / "Main"
    for folder in (voc / "JPEGImages", voc / "Annotations", lists, coco / f"{split}2017", coco / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for number, painted in enumerate(drawn, STREAMS.index(stream) * STREAM_LENGTH):
        height, width = painted.image.shape[:2]
        content, coco_name = jpeg(painted.image), f"{number:012d}.jpg"
        (voc / "JPEGImages" / f"{number:06d}.jpg").write_bytes(content)
        (voc / "Annotations" / f"{number:06d}.xml").write_text(_voc_xml(painted, f"{number:06d}.jpg", classes))
        (coco / f"{split}2017" / coco_name).write_bytes(content)
        images.append({"id": number, "file_name": coco_name, "width": width, "height": height})
        annotations += [_coco_annotation(o, number, k, segmentation) for k, o in enumerate(painted.objects)]
    (lists / f"{stream}.txt").write_text("".join(f"{image['id']:06d}\n" for image in images))
    categories = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(classes, 1)]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (coco / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(instances))


def jpeg(image: np.ndarray) -> bytes:
    """An image, (H, W, 3) uint8 RGB, as a JPEG file of high quality."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _voc_xml(drawn: Scene, name: str, classes: Sequence[str]) -> str:
    """Return VOC's annotation of an image: boxes are 1-based and inclusive, so x0 becomes x0 + 1 and x1 stays."""
    height, width, depth = drawn.image.shape
    objects = "".join(
        f"<object><name>{classes[o.label]}</name><pose>Unspecified</pose>"
        f"<truncated>{o.truncated:d}</truncated><difficult>{o.difficult:d}</difficult>"
        f"<bndbox><xmin>{o.box[0] + 1:.0f}</xmin><ymin>{o.box[1] + 1:.0f}</ymin>"
        f"<xmax>{o.box[2]:.0f}</xmax><ymax>{o.box[3]:.0f}</ymax></bndbox></object>\n"
        for o in drawn.objects
    )
    return (
        f"<annotation>\n<folder>VOC2007</folder><filename>{name}</filename>\n"
        f"<size><width>{width}</width><height>{height}</height><depth>{depth}</depth></size>"
        f"<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO's polygons [x0, y0, x1, y1, …] of a mask, (H, W) bool, along the edges of its pixels: one for each part.

    A part's pixels touch, if only at a corner. A hole is cut open: its part's polygon goes there and back by one line.
    pycocotools makes the very mask of them.
    """
    fine = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, links = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    # A contour runs through the centres of the quarters of pixels at the border, each of which has a corner of a pixel.
    corners = [(contour[:, 0] + 1) // 2 for contour in contours]
    parts = {i: corners[i] for i, link in enumerate(links[0]) if link[3] < 0}
    for i, link in enumerate(links[0]):
        if link[3] >= 0:
            parts[link[3]] = _cut_open(parts[link[3]], corners[i])
    return [_turns(part).ravel().astype(float).tolist() for part in parts.values()]


def _cut_open(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A closed path (n, 2) that goes to another, (m, 2), and back, where the two are nearest."""
    distances = np.square(outline[:, None] - hole).sum(2)
    i, j = np.unravel_index(distances.argmin(), distances.shape)
    return np.concatenate([outline[: i + 1], hole[j:], hole[: j + 1], outline[i:]])


def _turns(path: np.ndarray) -> np.ndarray:
    """The points of a closed path (n, 2) at which it turns."""
    path = path[(path != np.roll(path, 1, axis=0)).any(1)]
    before, after = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    return path[(before != after).any(1)]


def _coco_annotation(item: SceneObject, image_id: int, position: int, segmentation) -> dict:
    x0, y0, x1, y1 = item.box
    return {
        "id": image_id * 10 + position,
        "image_id": image_id,
        "category_id": item.label + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(item.mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation(item.mask),
    }
