"""VOC folders: coordinates, difficult objects, classes, draws, and what is wrong with a folder."""

import os
import random
import re

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from PIL import Image

import transfer  # noqa: F401
from resim_bench import runs
from resim_bench.data import images, memory
from resim_bench.errors import UserError
from tests.transfer.conftest import CLASSES, object_xml, write_image
from transfer.datasets import seeded
from transfer.voc import VOCFolder, find_devkit, read_split

PIPELINE = [
    dict(type="mmdet.LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(
        type="mmdet.RandomChoiceResize",
        scales=[(200, short) for short in range(40, 90)],
        resize_type="mmdet.Resize",
        keep_ratio=True,
    ),
    dict(type="mmdet.PackDetInputs"),
]
LOAD = [PIPELINE[0], PIPELINE[1], PIPELINE[4]]


def test_an_ordinary_image_has_the_pixels_of_mmdetection_in_one_piece(devkit):
    seen = []
    dataset = VOCFolder(
        devkit, "test", CLASSES, pipeline=[PIPELINE[0], lambda results: seen.append(results) or results]
    )
    dataset[0]
    before = LoadImageFromFile(imdecode_backend="pillow")(dict(dataset.get_data_info(0)))
    assert np.array_equal(seen[0]["img"], before["img"]) and seen[0]["img"].flags.c_contiguous
    assert (seen[0]["img_shape"], seen[0]["ori_shape"]) == (before["img_shape"], before["ori_shape"])


@pytest.mark.parametrize("setting", [{"imdecode_backend": "cv2"}, {"color_type": "grayscale"}])
def test_another_reading_of_images_is_refused(devkit, setting):
    with pytest.raises(UserError, match="read in colour by Pillow: leave imdecode_backend"):
        VOCFolder(devkit, "test", CLASSES, pipeline=[PIPELINE[0] | setting])


def list_only(devkit, names, split="trainval", year="VOC2007"):
    (devkit / year / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def test_every_year_trains_and_2007_tests(devkit):
    train, test = (read_split(devkit, split).annotations for split in ("train", "test"))
    assert len(train) == 10 and len(test) == 4
    assert [a.source.parts[-3] for a in train] == ["VOC2007"] * 8 + ["VOC2012"] * 2
    (devkit / "VOC2012" / "ImageSets" / "Main" / "trainval.txt").unlink()
    assert len(read_split(devkit, "train").annotations) == 8


def test_the_folder_may_also_hold_the_devkit(devkit):
    assert find_devkit(devkit) == devkit
    assert find_devkit(devkit.parent) == devkit


def test_boxes_are_continuous_and_cover_their_pixels(devkit):
    write_image(devkit / "VOC2007", "one", (96, 64), [("red", (11, 21, 30, 60), 0)])
    list_only(devkit, ["one"], "test")
    sample = VOCFolder(devkit, "test", CLASSES, pipeline=LOAD)[0]
    box = sample["data_samples"].gt_instances.bboxes.tensor
    assert box.tolist() == [[10, 20, 30, 60]]
    red = (sample["inputs"][2] > 180) & (sample["inputs"][0] < 100)  # MMDetection reads BGR
    inside = torch.zeros_like(red)
    inside[20:60, 10:30] = True
    assert (red == inside).float().mean() > 0.98  # JPEG blurs the border


def test_fractional_corners_are_kept(devkit):
    xml = devkit / "VOC2007" / "Annotations" / "trainval_000.xml"
    text = xml.read_text().split("<xmin>")
    xml.write_text(text[0] + "<xmin>3.5" + text[1][text[1].index("</xmin>") :])
    assert read_split(devkit, "train").annotations[0].objects[0].box[0] == 2.5


def test_difficult_objects_train_and_are_ignored_in_the_test(devkit):
    for split, part in (("train", "gt_instances"), ("test", "ignored_instances")):
        dataset = VOCFolder(devkit, split, CLASSES, pipeline=LOAD)
        annotations = read_split(devkit, split).annotations
        difficult = [i for i, a in enumerate(annotations) if any(o.ignore for o in a.objects)]
        assert difficult
        sample = dataset[difficult[0]]["data_samples"]
        assert len(sample.get(part)) == {"train": 3, "test": 1}[split]
        assert len(sample.gt_instances) + len(sample.ignored_instances) == 3


def test_images_without_objects_do_not_train_but_are_tested(devkit):
    for split in ("trainval", "test"):
        write_image(devkit / "VOC2007", f"empty_{split}", (96, 64), [])
        list_only(devkit, [f"{split}_000", f"empty_{split}"], split)
    assert len(VOCFolder(devkit, "train", CLASSES)) == 1 + 2
    test = VOCFolder(devkit, "test", CLASSES, pipeline=LOAD)
    assert len(test) == 2 and test[1]["data_samples"].gt_instances.bboxes.tensor.shape == (0, 4)


ROUND = (1, 1, 20, 20)
BAD_BOXES = {
    "inverted": (60, 1, 20, 20),
    "upside down": (1, 50, 20, 20),
    "no width": (31, 1, 30, 20),
    "right of the image": (97, 1, 99, 20),
    "above the image": (1, -30, 20, -1),
    "not a number": ("nan", 1, 20, 20),
    "infinite": (1, 1, "inf", 20),
    "too large for a float": (1, 1, 20, "1e400"),
    "far beyond": (1, 1, 20000, 20),
}


@pytest.mark.parametrize("box", BAD_BOXES.values(), ids=BAD_BOXES)
def test_a_bad_box_does_not_train_and_is_refused_in_the_test(devkit, box):
    for split in ("trainval", "test"):
        write_image(devkit / "VOC2007", split, (96, 64), [("red", ROUND, 0)])
        xml = devkit / "VOC2007" / "Annotations" / f"{split}.xml"
        xml.write_text(xml.read_text().replace("</annotation>", object_xml("blue", box) + "</annotation>"))
        list_only(devkit, [split], split)
    train, test = VOCFolder.surveys(devkit)
    assert [(found.times, found.first) for found in train.left_out.values()] == [(1, "trainval.jpg, object 2 ('blue')")]
    assert not train.faults and list(test.faults) == list(train.left_out)
    dataset = VOCFolder(devkit, "train", CLASSES)
    assert [len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))][0] == 1
    with pytest.raises(UserError, match=r"test.xml: the box of object 2 \('blue'\) .* on test.jpg, 96 x 64"):
        VOCFolder.facts(devkit)


def test_the_oddities_of_pascal_voc_are_no_faults(devkit):
    """Boxes beyond the border by a pixel, fractions, parts of objects with boxes of their own, images without any."""
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>3</xmax><ymax>2</ymax></bndbox></part>"
    for split in ("trainval", "test"):
        write_image(devkit / "VOC2007", split, (96, 64), [])
        write_image(devkit / "VOC2007", f"{split}_none", (96, 64), [])
        xml = devkit / "VOC2007" / "Annotations" / f"{split}.xml"
        odd = object_xml("red", (0, " 1 ", 97, 64)) + object_xml("red", (45.70000076, 1, 90.5, "20\n"))
        odd = odd.replace("</object>", part + "</object>", 1)
        xml.write_text(xml.read_text().replace("</annotation>", odd + "</annotation>"))
        list_only(devkit, [split, f"{split}_none"], split)
    list_only(devkit, [], year="VOC2012")
    train, test = VOCFolder.surveys(devkit)
    assert train.line().endswith(
        "1 image, 2 objects of 1 class; left out: 1 images without objects (first: trainval_none.jpg)"
    )
    assert test.line().endswith("2 images, 2 objects of 1 class") and not (train.faults or test.faults)
    first, second = VOCFolder.reading(devkit, "test").annotations[0].objects
    assert first.box == (-1, 0, 97, 64) and second.box[0] == pytest.approx(44.7)


def turn(image, orientation):
    """Give an image file an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(image) as opened:
        opened.load()
        opened.save(image, exif=exif, quality=95)


def annotated_size(xml, width, height):
    xml.write_text(
        re.sub("<size>.*?</size>", f"<size><width>{width}</width><height>{height}</height></size>", xml.read_text())
    )


# stored size, orientation, annotated size: the size that the boxes are on, and whether EXIF is applied
TURNS = {
    "ordinary": ((96, 64), 1, (96, 64), (96, 64, True)),
    "turned, boxes as stored": ((96, 64), 6, (96, 64), (96, 64, False)),
    "turned, boxes as turned": ((96, 64), 6, (64, 96), (64, 96, True)),
    "turned, nothing annotated": ((96, 64), 8, (0, 0), (64, 96, True)),
    "turned, one side annotated": ((96, 64), 8, (0, 64), (96, 64, False)),
    "turned, square": ((64, 64), 6, (64, 64), (64, 64, True)),
    "upside down": ((96, 64), 3, (96, 64), (96, 64, True)),
    "nothing annotated": ((96, 64), 1, (0, 0), (96, 64, True)),
    "empty": ((96, 64), 1, ("", " "), (96, 64, True)),
    "contradicting": ((96, 64), 1, (64, 96), None),
    "negative": ((96, 64), 1, (-96, 64), None),
    "another": ((96, 64), 6, (100, 64), None),
}


@pytest.mark.parametrize(("stored", "orientation", "size", "expected"), TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("split", ["trainval", "test"])
def test_size_and_orientation_of_an_image(devkit, split, stored, orientation, size, expected):
    year = devkit / "VOC2007"
    write_image(year, "one", stored, [("red", (1, 1, 30, 20), 0)])
    turn(year / "JPEGImages" / "one.jpg", orientation)
    annotated_size(year / "Annotations" / "one.xml", *size)
    list_only(devkit, ["one"], split)
    reading = VOCFolder.reading(devkit, split.removesuffix("val"))
    if expected is None:
        assert list(reading.survey.faults) == ["sizes that contradict the image"]
        with pytest.raises(
            UserError, match=rf"one.xml says that one.jpg has .*, but .*one.jpg has {stored[0]} x {stored[1]}"
        ):
            VOCFolder.facts(devkit)
        return
    assert not reading.survey.faults
    assert reading.annotations[0][3:5] + reading.annotations[0][6:] == expected
    loaded = VOCFolder(devkit, split.removesuffix("val"), CLASSES, pipeline=LOAD)[0]
    assert loaded["data_samples"].ori_shape == expected[1::-1] == tuple(loaded["inputs"].shape[1:])
    corner = loaded["inputs"][2, 5:15, 5:15].float().mean() > 180  # red: BGR
    assert corner == (orientation == 1 or not expected[2])


def test_sixteen_bits_are_scaled(devkit):
    year = devkit / "VOC2007"
    (year / "JPEGImages" / "test_000.jpg").unlink()
    Image.fromarray(np.full((64, 96), 0x4321, np.uint16)).save(year / "JPEGImages" / "test_000.png")
    assert VOCFolder(devkit, "test", CLASSES, pipeline=LOAD)[0]["inputs"].unique().tolist() == [0x43]


def test_an_image_of_one_pixel(devkit):
    write_image(devkit / "VOC2007", "one", (1, 1), [("red", (1, 1, 1, 1), 0)])
    list_only(devkit, ["one"], "test")
    assert VOCFolder.usable(devkit, "test").survey.images == 1


def test_a_split_is_read_once_a_run_and_its_images_once(devkit, monkeypatch):
    read, sized, decoded = [], [], []
    monkeypatch.setattr(
        VOCFolder, "read", staticmethod(lambda root, split: read.append(split) or read_split(root, split))
    )
    monkeypatch.setattr(images, "stored_size", lambda path, size=images.stored_size: sized.append(path) or size(path))
    monkeypatch.setattr(images, "unreadable", lambda paths, what: decoded.extend(paths) or {})

    def run():
        VOCFolder.facts(devkit)
        VOCFolder.surveys(devkit)
        VOCFolder.decode_test(devkit)
        VOCFolder(devkit, "test", CLASSES), VOCFolder(devkit, "train", CLASSES)

    run()
    assert (read, len(sized), len(decoded)) == (["train", "test"], 14, 4)
    run()
    assert (read, len(sized), len(decoded)) == (["train", "test"] * 2, 14, 4)
    image = devkit / "VOC2007" / "JPEGImages" / "test_001.jpg"
    os.utime(image, ns=(0, 0))
    run()
    assert sized[14:] == [image] and decoded[4:] == [str(image)]


@pytest.mark.parametrize(
    "remembered", [[], {"VOC2007/JPEGImages/test_000.jpg": 5}, {"VOC2007/JPEGImages/test_000.jpg": []}]
)
def test_what_is_remembered_is_a_hint(devkit, remembered):
    for kind in ("sizes-test", "decoded"):
        memory.remember(kind, devkit, remembered)
    VOCFolder.decode_test(devkit)
    assert VOCFolder.usable(devkit, "test").annotations[0][3:5] == (96, 64)


def test_an_image_of_the_test_that_trains_is_said(devkit):
    list_only(devkit, ["test_001", "trainval_000", "trainval_001"], "test")
    train, test = VOCFolder.surveys(devkit)
    assert test.line().endswith("; note: 2 images of the test that train, too (first: trainval_000.jpg)")
    assert VOCFolder.surveys(devkit)[1] == test and "note" not in train.line()
    assert test.facts()["notes"] == {"images of the test that train, too": {"count": 2, "first": "trainval_000.jpg"}}
    VOCFolder.facts(devkit)


def test_a_class_of_the_test_that_does_not_train_is_a_fault_unless_it_is_listed(devkit):
    write_image(devkit / "VOC2007", "new", (96, 64), [("ace", ROUND, 0)])
    list_only(devkit, ["test_000", "new"], "test")
    assert "objects of classes that do not train" in VOCFolder.surveys(devkit)[1].faults
    with pytest.raises(UserError, match="new.xml has an object of class 'ace', which is not among"):
        VOCFolder.facts(devkit)
    assert VOCFolder.facts(devkit, [*CLASSES, "ace"])["test_images"] == 2


def test_classes_are_read_or_given(devkit):
    assert read_split(devkit, "train").classes == CLASSES
    assert VOCFolder(devkit, "test").metainfo["classes"] == CLASSES
    given = VOCFolder(devkit, "train", ("red", "none", "blue", "green"))
    assert given.metainfo["classes"] == ("red", "none", "blue", "green")
    labels = {i["bbox_label"] for info in map(given.get_data_info, range(10)) for i in info["instances"]}
    assert labels == {0, 2, 3}
    with pytest.raises(UserError, match=r"\.xml has an object of class 'green'"):
        VOCFolder(devkit, "train", ("blue", "red"))


def test_a_sample_is_a_function_of_seed_and_draw(devkit):
    dataset = VOCFolder(devkit, "train", CLASSES, seed=1, pipeline=PIPELINE)
    first = [dataset[draw, 0]["inputs"] for draw in range(8)]
    again = [dataset[draw, 0]["inputs"] for draw in reversed(range(8))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({tuple(x.shape) for x in first}) > 4
    other = VOCFolder(devkit, "train", CLASSES, seed=2, pipeline=PIPELINE)
    assert [tuple(other[draw, 0]["inputs"].shape) for draw in range(8)] != [tuple(x.shape) for x in first]
    assert dataset.get_data_info((5, 2)) == dataset.get_data_info(2)


def test_the_global_generators_are_left_alone():
    def draws():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = draws()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    with seeded(1, 2):
        inside = draws()
    assert draws() == expected
    with seeded(1, 2):
        assert draws() == inside
    with seeded(1, 3):
        assert all(a != b for a, b in zip(draws(), inside, strict=True))


def _remove_split(devkit):
    (devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    return "there is no .*test.txt"


def _empty_split(devkit):
    list_only(devkit, [], "test")
    return "test.txt names no image"


def _remove_xml(devkit):
    (devkit / "VOC2007" / "Annotations" / "test_001.xml").unlink()
    return "there is no annotation .*test_001.xml"


def _break_xml(devkit):
    (devkit / "VOC2007" / "Annotations" / "test_001.xml").write_text("<annotation><size>")
    return "test_001.xml is no annotation"


def _strip_xml(devkit):
    (devkit / "VOC2007" / "Annotations" / "test_001.xml").write_text("<annotation><object/></annotation>")
    return r"test_001.xml is no annotation in VOC's format \(object 1: it has no name"


def _remove_image(devkit):
    (devkit / "VOC2007" / "JPEGImages" / "test_001.jpg").unlink()
    return "there is no .*test_001.jpg"


@pytest.mark.parametrize("damage", [_remove_split, _empty_split, _remove_xml, _break_xml, _strip_xml, _remove_image])
def test_what_is_wrong_with_a_folder_is_said_with_its_path(devkit, damage):
    VOCFolder.usable(devkit, "test")
    VOCFolder.forget()
    message = damage(devkit)
    with pytest.raises(UserError, match=message):
        VOCFolder.usable(devkit, "test")
    assert VOCFolder.surveys(devkit)[1].faults


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_devkit(tmp_path / "nowhere")
    (tmp_path / "VOC2007x").mkdir()
    with pytest.raises(UserError, match="holds no VOC20xx folder"):
        find_devkit(tmp_path)


@pytest.mark.parametrize(("split", "objects"), [("trainval", []), ("test", [("red", (1, 1, 20, 20), 1)])])
def test_a_split_without_an_object_that_counts(devkit, split, objects):
    write_image(devkit / "VOC2007", "only", (96, 64), objects)
    list_only(devkit, ["only"], split)
    list_only(devkit, [], year="VOC2012")
    with pytest.raises(UserError, match=f"no image of the {split.removesuffix('val')}.* split in .* has an object"):
        VOCFolder.facts(devkit)


def test_the_facts_of_a_folder(devkit):
    write_image(devkit / "VOC2007", "empty", (96, 64), [])
    list_only(devkit, ["trainval_000", "trainval_001", "empty"])
    facts = VOCFolder.facts(devkit)
    assert (facts["train_images"], facts["test_images"], facts["classes"]) == (4, 4, list(CLASSES))
    before = VOCFolder.old_digest(devkit)
    names = ("empty", "trainval_000", "trainval_001", *(f"test_00{i}" for i in range(4)))
    files = [file for name in names for file in (devkit / "VOC2007").glob(f"*/{name}.*")]
    assert before == runs.data_digest(devkit, [*files, *(devkit / "VOC2012").glob("*/*.*")])
    Image.new("RGB", (96, 64)).save(devkit / "VOC2007" / "JPEGImages" / "empty.jpg")
    assert VOCFolder.facts(devkit)["digest"] == facts["digest"] and VOCFolder.old_digest(devkit) != before
    xml = devkit / "VOC2007" / "Annotations" / "trainval_000.xml"
    xml.write_text(xml.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    changed = VOCFolder.facts(devkit)["digest"]
    assert {part for part in changed if changed[part] != facts["digest"][part]} == {"annotations"}


def _link(image):
    image.unlink()
    image.symlink_to("nowhere")


def _pipe(image):
    image.unlink()
    os.mkfifo(image)


def _bomb(image):
    image.unlink()
    Image.new("1", (20_000, 10_000)).save(image.with_suffix(".png"))


NO_IMAGES = {
    "empty": (lambda image: image.write_bytes(b""), "of no format"),
    "text": (lambda image: image.write_text("no image"), "of no format"),
    "cut short in its header": (lambda image: image.write_bytes(image.read_bytes()[:300]), ""),
    "broken link": (_link, "No such file"),
    "pipe": (_pipe, "it is a pipe"),
    "bomb": (_bomb, "more than the 178,956,970 pixels"),
}


@pytest.mark.parametrize(("spoil", "why"), NO_IMAGES.values(), ids=NO_IMAGES)
@pytest.mark.parametrize("name", ["trainval_000", "test_000"])
def test_an_image_without_a_readable_header_is_refused_at_once(devkit, name, spoil, why):
    spoil(devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg")
    with pytest.raises(UserError, match=rf"{name}.* is no readable image \(.*{why}"):
        VOCFolder.facts(devkit)


def test_an_image_that_does_not_decode(devkit):
    """Is refused before the training if the test needs it, and else by the loader; once repaired, it is fine."""
    for name in ("test_000", "test_002", "trainval_000"):
        image = devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg"
        whole = image.read_bytes()
        image.write_bytes(whole[:900])
    VOCFolder.facts(devkit)
    with pytest.raises(UserError, match=r"test_000.jpg is no readable image .*\(1 more: "):
        VOCFolder.decode_test(devkit)
    with pytest.raises(UserError, match="trainval_000.jpg is no readable image"):
        VOCFolder(devkit, "train", CLASSES, pipeline=LOAD)[0]
    for name in ("test_000", "test_002"):
        Image.new("RGB", (96, 64)).save(devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg")
    VOCFolder.decode_test(devkit)
