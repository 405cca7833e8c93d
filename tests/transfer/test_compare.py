"""Which test images are shown of several detectors, and what is said of each: a case whose answer is known."""

import importlib
import io
import re

import numpy as np
import pytest
from PIL import Image

import tables
from resim_bench import cli, record
from resim_bench.comparison import Counts, counts
from resim_bench.errors import UserError
from tests.transfer.conftest import make_devkit
from tests.transfer.test_detections import some
from transfer import compare, errors, show
from transfer.detections import SUFFIX, Detections, Found, Images, Truth, write
from transfer.metrics import measure

CAT, DOG = (10, 10, 30, 30), (40, 40, 60, 60)
ELSEWHERE = (0, 50, 8, 60)
COUNT = 5


def on_five(*found):
    """Five images, a cat and a dog in each, and a difficult dog in the last; detections (image, label, box, score)."""
    objects = [(image, label, box, False) for image in range(COUNT) for label, box in ((0, CAT), (1, DOG))]
    objects.append((4, 1, ELSEWHERE, True))
    image, label, box, ignored = (np.array(column) for column in zip(*objects, strict=True))
    columns = [list(column) for column in zip(*found, strict=True)] or [[]] * 4
    return Detections(
        Images([f"test_{number:03d}" for number in range(COUNT)], np.array([[64, 96], [64, 96], [96, 64]] * 2)[:COUNT]),
        ("cat", "dog"),
        Truth(image, label, box.astype(float), ignored, np.full(len(image), 400.0)),
        Found(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.int64),
            np.array(columns[2], np.float32).reshape(-1, 4),
            np.array(columns[3], np.float32),
        ),
        {"type": "VOCAveragePrecision"},
    )


ONE = on_five(  # all but the dog of image 1; the scores do not matter, their order does
    *[(image, 0, CAT, 0.9) for image in range(COUNT)],
    *[(image, 1, DOG, 0.1) for image in range(COUNT)],
    (1, 0, DOG, 0.7),
    (4, 1, ELSEWHERE, 0.8),  # takes no place: that dog is difficult
)
OTHER = on_five(  # of two objects the two best count
    (0, 0, CAT, 0.9),
    (1, 0, CAT, 0.9),
    (1, 0, ELSEWHERE, 0.95),
    (1, 1, DOG, 0.8),
    (3, 1, CAT, 0.9),
    (3, 0, ELSEWHERE, 0.8),
    (4, 0, CAT, 0.9),
    (4, 0, CAT, 0.85),
    (4, 1, DOG, 0.6),
)


@pytest.fixture
def devkit(tmp_path):
    return make_devkit(tmp_path / "photos" / "VOCdevkit", test=COUNT)


@pytest.fixture
def held(tmp_path, devkit):
    """What `compare` makes of these methods' detections."""

    def result(data=(devkit,), **methods):
        files = {}
        for name, detections in methods.items():
            file = tmp_path / f"{name}{SUFFIX}"
            files[name] = file, write(file, detections)
        return compare.compare(files, "mini-voc-frozen", data)

    return result


def test_images_are_sorted_by_how_far_apart_the_methods_are(held):
    found = held(one=ONE, other=OTHER)
    assert [picture.name for picture in found.pictures] == ["test_002", "test_003", "test_000", "test_004"]
    assert [counts(picture, "other") for picture in found.pictures] == [(2, 0, 0), (2, 0, 2), (2, 1, 0), (2, 1, 1)]
    assert {counts(picture, "one") for picture in found.pictures} == {(2, 2, 0)}
    assert found.totals == {"one": Counts(10, 9, 1), "other": Counts(10, 3, 4)}
    assert (found.images, found.differ, found.lost) == (COUNT, 4, 0)


def test_of_one_difference_the_clearest_comes_first(held):
    one = on_five((2, 0, CAT, 0.9))
    other = on_five((0, 0, CAT, 0.9), (2, 0, CAT, 0.9), (2, 1, DOG, 0.9))
    assert [picture.name for picture in held(one=one, other=other).pictures] == ["test_002", "test_000"]
    found = held(one=one, other=one)
    assert found.pictures == [] and found.differ == 0


def test_what_is_said_is_what_show_says(held):
    """One judgement: the kinds are those of the sheet that `resim-bench show` draws."""
    ordered = OTHER._replace(found=errors.in_order(OTHER.found))
    kinds = {}
    for picture in held(one=ONE, other=OTHER).pictures:
        wanted, marks = show.judged_marks(ordered, OTHER.images.ids.index(picture.name), most=2)
        found = picture.detections["other"]
        assert [mark.text.removeprefix("true: ").removeprefix("false: ") for mark in marks] == [
            f"{one.label} {one.score:.2f}" + (f", {one.kind}" if one.kind != "right" else "") for one in found
        ]
        assert sum(mark.text.startswith("missed") for mark in wanted) == counts(picture, "other").missed
        assert [mark.box for mark in marks] == [list(one.box) for one in found]
        kinds[picture.name] = [(one.kind, one.object) for one in found]
    assert kinds["test_003"] == [("classification", None), ("background", None)]
    assert kinds["test_004"] == [("right", 0), ("duplicate", None)]


def test_a_difficult_object_is_no_error_either_way(held):
    (picture,) = (one for one in held(one=ONE, other=OTHER).pictures if one.name == "test_004")
    assert [(one.label, one.ignored) for one in picture.objects] == [("cat", False), ("dog", False), ("dog", True)]
    assert [one.score for one in picture.detections["one"]] == pytest.approx([0.9, 0.1]), "and not the one of .8"


def test_pictures_are_small_and_whole(held, devkit, monkeypatch):
    monkeypatch.setattr(compare, "SIDE", 48)
    for picture in held(one=ONE, other=OTHER).pictures:
        image = Image.open(io.BytesIO(picture.jpeg))
        assert image.format == "JPEG" and max(image.size) == 48
        assert image.size == tuple(side // 2 for side in picture.size)
        there = Image.open(devkit / "VOC2007/JPEGImages" / f"{picture.name}.jpg").resize(image.size)
        assert np.abs(np.asarray(image, int) - np.asarray(there, int)).mean() < 10, "that image and no other"


def test_no_more_than_there_is_room_for(held, monkeypatch):
    monkeypatch.setattr(compare, "MOST", 2)
    found = held(one=ONE, other=OTHER)
    assert [picture.name for picture in found.pictures] == ["test_002", "test_003"] and found.differ == 4


def test_a_box_that_is_none_stays_near_its_image(held):
    wild = on_five((0, 0, (-1e30, float("nan"), float("inf"), 5), 0.9))
    (picture, *_) = (one for one in held(one=wild, other=ONE).pictures if one.name == "test_000")
    assert picture.detections["one"][0].box == (-96, 0, 192, 5)


def test_an_image_that_cannot_be_read_gives_its_place_to_the_next(held, devkit):
    file = devkit / "VOC2007/JPEGImages/test_002.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    found = held(one=ONE, other=OTHER)
    assert [picture.name for picture in found.pictures] == ["test_003", "test_000", "test_004"] and found.lost == 1


def test_images_are_where_they_are_said_to_be_or_a_sentence_says_how_to_get_them(held, devkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = make_devkit(tmp_path / "others" / "VOCdevkit", test=2)
    for name in ("test_000", "test_001"):  # the same layout, other images
        for file in others.rglob(f"{name}.*"):
            file.rename(file.with_stem(name.replace("test", "other")))
    listed = others / "VOC2007/ImageSets/Main/test.txt"
    listed.write_text(listed.read_text().replace("test", "other"))
    assert len(held(data=(tmp_path / "nowhere", others, devkit), one=ONE, other=OTHER).pictures) == 4
    with pytest.raises(UserError, match=r"the test images of mini-voc-frozen are not in data/mini/VOCdevkit: `resim"):
        held(data=(others,), one=ONE, other=OTHER)


def test_other_annotations_are_another_test(held):
    other = OTHER._replace(truth=OTHER.truth._replace(box=OTHER.truth.box + 1))
    with pytest.raises(UserError, match=r"other and one were tested on other images or other annotations"):
        held(one=ONE, other=other)


def test_boxes_are_compared_where_there_are_masks(tmp_path, coco_folder):
    one = some()
    images = one.images._replace(ids=["000000000010.jpg", "000000000011.jpg"], sizes=np.array([[64, 96], [96, 64]]))
    truth = one.truth._replace(box=np.array([[1.0, 1, 9, 9], [1, 1, 9, 9], [2, 2, 20, 30]]), mask=None)
    boxes = np.array([[2, 2, 20, 30], [1, 1, 9, 9]], np.float32)
    sure = one._replace(images=images, truth=truth, found=one.found._replace(box=boxes, mask=None))
    none = sure._replace(found=Found(*(column[:0] for column in sure.found[:4])))
    files = {}
    for name, detections in (("none", none), ("sure", sure)):
        files[name] = tmp_path / name, write(tmp_path / name, detections)
    (picture,) = compare.compare(files, "coco-1x", [coco_folder]).pictures
    assert picture.name == "000000000011.jpg" and picture.size == (64, 96)
    assert [counts(picture, name) for name in files] == [(1, 0, 0), (1, 1, 0)]


@pytest.fixture
def report(tmp_path, make_record, monkeypatch, devkit, capsys):
    """Writes the page of a work directory with these records, as the command does; returns its text."""
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "kept"
    monkeypatch.setattr(tables, "RECORDS", kept)

    def write_it(*records, data=devkit):
        for pretrain, detections, seeds in records:
            entry = make_record(pretrain, "mini-voc-frozen", seeds=seeds)
            entry["transfer"]["protocol"] = {}
            beside = record.path("work_dirs/records", *record.key(entry)).with_suffix(SUFFIX)
            of_file = {"file": beside.name, "sha256": write(beside, detections)}
            entry |= measure(detections)._asdict() | {"detections": of_file}
            record.write("work_dirs/records", entry)
        words = ["--data", str(data)] if data else []
        assert cli.main(["report", *words]) == 0
        capsys.readouterr()
        return (tmp_path / "work_dirs/report.html").read_text("utf-8")

    module = importlib.import_module("tables.collect")  # `tables.collect` is the function
    monkeypatch.setattr(module, "load_protocols", lambda: {"pretrain": {}, "transfer": {}})
    return write_it


def test_the_page_has_them(report):
    text = report(("mini-moco-v2", ONE, (0, 0)), ("mini-resim-c4", OTHER, (0, 0)))
    assert text.count("data:image/jpeg;base64,") == 4
    assert 'aria-label="ReSim-C4: 0 of 2 objects found, 2 missed, 2 detections wrong"' in text
    assert re.search(r"<bdi>test_003</bdi>, found: MoCo-v2 2, ReSim-C4 0<", text)


def test_without_images_the_page_says_so(report):
    text = report(("mini-moco-v2", ONE, (0, 0)), ("mini-resim-c4", OTHER, (0, 0)), data=None)
    assert "data:image" not in text and "<code>resim-bench data</code> says how to get them" in text


def test_without_detections_the_page_says_so(report, tmp_path):
    text = report(("mini-moco-v2", ONE, (0, 0)), ("mini-resim-c4", ONE, (1, 1)))
    assert "data:image" not in text and "leaves its own: <code>make mini</code>" in text, "they share no seed"
    assert "data:image" in report(("mini-resim-c4", OTHER, (0, 0)))
    (tmp_path / "work_dirs/records/mini-resim-c4/mini-voc-frozen" / f"pretrain-0_transfer-0{SUFFIX}").unlink()
    text = report()
    assert "data:image" not in text and "leaves its own: <code>make mini</code>" in text, "one of them is away"


def test_changed_detections_are_said(report, tmp_path):
    records = ("mini-moco-v2", ONE, (0, 0)), ("mini-resim-c4", OTHER, (0, 0))
    report(*records)
    file = next((tmp_path / "work_dirs").rglob(f"*{SUFFIX}"))
    file.write_bytes(file.read_bytes() + b"x")
    text = report()
    assert "data:image" not in text and "has changed since it was written (another checksum" in text
