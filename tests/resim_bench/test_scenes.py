"""Generated scenes: the same for the same seed, true to their masks, whole or absent."""

import inspect
import json
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pretrain import train
from resim_bench.data import scenes
from resim_bench.errors import UserError
from transfer import protocols

SMALL = {"pretrain_images": 3, "train_images": 12, "test_images": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write(tmp_path_factory.mktemp("scenes") / "mini", **SMALL)


@pytest.fixture(scope="module")
def drawn() -> list[scenes.Scene]:
    return [scenes.scene(0, "trainval", i) for i in range(150)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def detections(root: Path):
    """Yield (image number, what was drawn) for each detection image of `SMALL`."""
    for stream, count in (("trainval", SMALL["train_images"]), ("test", SMALL["test_images"])):
        names = (root / f"VOCdevkit/VOC2007/ImageSets/Main/{stream}.txt").read_text().split()
        assert len(names) == count
        yield from ((name, scenes.scene(0, stream, i)) for i, name in enumerate(names))


def rasterised(polygons: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    """The mask that pycocotools makes of them."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *map(int, shape)))).astype(bool)


def extent(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_same_seed_gives_the_same_bytes(root, tmp_path):
    assert contents(scenes.write(tmp_path / "again", **SMALL)) == contents(root)


def test_another_seed_or_stream_gives_other_images():
    images = [scenes.scene(seed, stream, 0).image for seed in (0, 1) for stream in scenes.STREAMS]
    assert len({image.tobytes() for image in images}) == len(images)


def test_streams_share_no_image(root):
    images = [p.read_bytes() for p in root.rglob("*.jpg") if "coco" not in p.parts]
    assert len(images) == sum(SMALL.values())
    assert len(set(images)) == len(images)


def test_a_longer_set_begins_with_the_shorter_one(root, tmp_path):
    longer = contents(scenes.write(tmp_path / "longer", **{name: n + 2 for name, n in SMALL.items()}))
    for name, data in contents(root).items():
        if name.endswith((".jpg", ".xml")):
            assert longer[name] == data
        elif name.endswith(".txt"):
            assert longer[name].startswith(data)
        elif "instances" in name:
            short, long = json.loads(data), json.loads(longer[name])
            for key in ("images", "annotations", "categories"):
                assert long[key][: len(short[key])] == short[key]
        else:
            assert name == "scenes.json"


def test_version_covers_what_is_drawn():
    """Fails when the generator draws otherwise: raise VERSION with it, or old folders pass for new ones."""
    objects = scenes.scene(0, "test", 0, 128).objects
    seen = [(scenes.CLASSES[o.label], *map(int, o.box)) for o in objects]
    assert (scenes.VERSION, seen) == (
        2,
        [
            ("ring", 83, 57, 112, 84),
            ("star", 35, 41, 57, 69),
            ("cross", 80, 82, 101, 103),
            ("star", 35, 25, 91, 80),
            ("circle", 17, 43, 33, 60),
        ],
    )


def test_scenes_hold_what_they_promise(drawn):
    for scene in drawn:
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert scenes.OBJECTS[0] <= len(scene.objects) <= scenes.OBJECTS[1]
        assert np.sum([o.mask for o in scene.objects], axis=0).max() == 1, "visible parts never overlap"
        for o in scene.objects:
            assert list(o.box) == extent(o.mask)
            assert scenes.MIN_VISIBLE <= o.visible <= 1
            assert o.difficult == (o.visible < scenes.DIFFICULT_BELOW)
            assert not o.truncated or (min(o.box[:2]) == 0 or max(o.box[2:]) == 96 or o.visible < 1)


def test_classes_scales_and_occlusion_all_occur(drawn):
    objects = [o for scene in drawn for o in scene.objects]
    labels = Counter(o.label for o in objects)
    assert sorted(labels) == list(range(len(scenes.CLASSES)))
    assert min(labels.values()) > 0.5 * max(labels.values())
    whole = [max(o.box[2] - o.box[0], o.box[3] - o.box[1]) for o in objects if o.visible == 1]
    assert min(whole) < 20 and max(whole) > 56
    assert any(o.truncated for o in objects) and any(o.difficult for o in objects)
    assert 0.1 < np.mean([o.visible < 0.9 for o in objects]) < 0.6
    assert {len(scene.objects) for scene in drawn} == set(range(3, 8))


def test_colour_says_nothing_about_the_class(drawn):
    """A nearest-mean classifier on an object's mean colour, half against half, stays near chance."""
    pairs = [(s.image[o.mask].mean(0), o.label) for s in drawn for o in s.objects]
    colour, label = (np.array(column) for column in zip(*pairs, strict=True))
    half = len(label) // 2
    means = np.stack([colour[:half][label[:half] == c].mean(0) for c in range(len(scenes.CLASSES))])
    guess = np.linalg.norm(colour[half:, None] - means, axis=2).argmin(1)
    assert np.mean(guess == label[half:]) < 0.25  # chance is 0.167, with a standard error of 0.02


def test_masks_lie_on_the_objects(monkeypatch):
    """Without texture and noise an object has one colour, and the image has another just outside of it."""
    monkeypatch.setattr(scenes, "_texture", lambda rng, size: np.zeros((size, size), np.float32))
    inside, outside = [], []
    for index in range(20):
        scene = scenes.scene(0, "test", index)
        image = cv2.GaussianBlur(scene.image, (3, 3), 0).astype(float)
        for o in scene.objects:
            mask = o.mask.astype(np.uint8)
            core = cv2.erode(mask, np.ones((5, 5)), borderValue=0).astype(bool)
            rim = cv2.dilate(mask, np.ones((7, 7))) - cv2.dilate(mask, np.ones((3, 3))) == 1
            if core.sum() > 20 and rim.any():
                colour = np.median(image[core], axis=0)
                inside.append(np.abs(image[core] - colour).mean())
                outside.append(np.abs(image[rim] - colour).mean())
    assert np.max(inside) < 6
    assert np.mean(np.array(outside) > 15) > 0.95


def test_voc_boxes_are_the_extents_of_the_masks(root):
    voc = root / "VOCdevkit" / "VOC2007"
    for name, scene in detections(root):
        tree = ElementTree.parse(voc / "Annotations" / f"{name}.xml").getroot()
        image = cv2.imread(str(voc / "JPEGImages" / tree.findtext("filename")))
        assert [int(tree.findtext(f"size/{side}")) for side in ("height", "width", "depth")] == [*image.shape]
        assert np.abs(image[..., ::-1] - scene.image.astype(float)).mean() < 8, "the picture, in its colours"
        nodes = tree.findall("object")
        for node, o in zip(nodes, scene.objects, strict=True):
            x0, y0, x1, y1 = extent(o.mask)
            box = [int(node.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            assert box == [x0 + 1, y0 + 1, x1, y1]
            assert node.findtext("name") == scenes.CLASSES[o.label]
            assert node.findtext("difficult") == str(int(o.visible < scenes.DIFFICULT_BELOW))
            assert node.findtext("truncated") == str(int(o.truncated))


def test_coco_reads_the_same_objects(root):
    drawn = dict(detections(root))
    for split in ("train", "val"):
        coco = COCO(str(root / f"coco/annotations/instances_{split}2017.json"))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(scenes.CLASSES)
        for image in coco.loadImgs(coco.getImgIds()):
            name = f"{image['id']:06d}"
            scene = drawn.pop(name)
            same = root / "VOCdevkit/VOC2007/JPEGImages" / f"{name}.jpg"
            assert (root / f"coco/{split}2017" / image["file_name"]).read_bytes() == same.read_bytes()
            annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
            for annotation, o in zip(annotations, scene.objects, strict=True):
                assert annotation["segmentation"] == scenes.polygons(o.mask)
                rle = coco.annToRLE(annotation)
                assert np.array_equal(coco_mask.decode(rle), o.mask)
                assert annotation["area"] == coco_mask.area(rle) == o.mask.sum()
                assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
                assert annotation["category_id"] == o.label + 1 and annotation["iscrowd"] == 0
    assert not drawn, "every VOC image is in COCO"


PARTS = {  # of how many outlines a mask is made
    "###/###": 1,
    "#": 1,
    "##./.##": 1,
    "#../..#": 2,
    "#../.#./..#": 1,
    "####/#..#/####": 1,
    "#####/#.#.#/#####": 1,
    "####/#.##/##.#/####": 1,
    ".##/#.#/###": 1,
    "#######/#.....#/#.###.#/#.#.#.#/#.###.#/#.....#/#######": 2,
}


@pytest.mark.parametrize("picture", PARTS)
def test_outlines_make_the_mask_again_with_holes_and_in_parts(picture):
    mask = np.array([[pixel == "#" for pixel in row] for row in picture.split("/")])
    for turned in (mask, mask.T, mask[::-1], np.pad(mask, 2)):
        polygons = scenes.polygons(turned)
        assert np.array_equal(rasterised(polygons, turned.shape), turned)
        assert len(polygons) == PARTS[picture] and all(len(polygon) >= 8 for polygon in polygons)


def test_outlines_make_any_mask_again():
    rng = np.random.default_rng(0)
    for _ in range(300):
        mask = rng.random(rng.integers(1, 14, 2)) < rng.uniform(0.3, 0.95)
        mask.flat[0] = True
        assert np.array_equal(rasterised(scenes.polygons(mask), mask.shape), mask)


def test_a_second_write_does_nothing(root, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    monkeypatch.setattr(scenes, "render", None)
    start = time.perf_counter()
    assert scenes.write(root, **SMALL) == root
    assert time.perf_counter() - start < 0.5
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 128}, {"train_images": 13}, {"version": 1}])
def test_other_scenes_are_never_overwritten(root, monkeypatch, change):
    before = contents(root)
    monkeypatch.setattr(scenes, "VERSION", change.get("version", scenes.VERSION))
    with pytest.raises(UserError, match="other than these scenes: remove it, and"):
        scenes.write(root, **{**SMALL, **{k: v for k, v in change.items() if k != "version"}})
    assert contents(root) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError):
        scenes.write(tmp_path, **SMALL)
    assert contents(tmp_path) == {"photo.jpg": b"mine"}


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"size": 8}, {"test_images": 0}, {"train_images": scenes.STREAM_LENGTH + 1}]
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="scenes need a seed from 0"):
        scenes.write(tmp_path / "mini", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    """Neither what another process builds under a longer name, nor hidden folders of the user's."""
    others = {".mini-objects.building-abc", ".mini-objects.lock", ".mini-old", ".mini.bak"}
    for name in others | {".mini.building-abc"}:
        (tmp_path / name / "scenes").mkdir(parents=True)
    (tmp_path / ".mini.lock").touch()
    for _ in range(2):
        scenes.write(tmp_path / "mini", **SMALL)
        assert {entry.name for entry in tmp_path.iterdir()} == others | {"mini"}
        (tmp_path / ".mini.building-abc").mkdir()
    scenes.write(tmp_path / "mini", **SMALL)
    assert {entry.name for entry in tmp_path.iterdir()} == others | {"mini"}


def test_scenes_in_a_file_are_refused(tmp_path):
    (tmp_path / "data").write_bytes(b"mine")
    with pytest.raises(OSError, match="Not a directory|File exists"):  # which the command line says in a sentence
        scenes.write(tmp_path / "data" / "mini", **SMALL)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    render, calls = scenes.render, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == SMALL["pretrain_images"] + 5:
            raise error
        return render(*args)

    monkeypatch.setattr(scenes, "render", interrupted)
    with pytest.raises(error):
        scenes.write(tmp_path / "mini", **SMALL)
    assert not list(tmp_path.iterdir())


def test_the_defaults_are_what_mini_trains_on():
    """`resim-bench mini` writes them as they are."""
    counts = {name: p.default for name, p in inspect.signature(scenes.write).parameters.items() if "images" in name}
    expected = protocols.load("mini-voc-full").expected_data
    assert counts == {
        "pretrain_images": train.load_recipe("mini-moco-v2").dataset.images,
        "train_images": expected.train_images,
        "test_images": expected.test_images,
    }
