"""VOC folders: coordinates, difficult objects, classes, draws, and what is wrong with a folder."""

import io
import os
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from PIL import ExifTags, Image

import transfer  # noqa: F401
from resim_bench.data import images, memory
from resim_bench.errors import UserError
from resim_bench.harness import runs
from tests.transfer.conftest import CLASSES, make_devkit, write_image
from transfer import datasets, imagefiles
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


@pytest.mark.parametrize("loader", ["pillow", "cv2"])
def test_pixels_are_what_mmdetection_loads_and_in_one_piece(devkit, loader):
    theirs = dict(PIPELINE[0], imdecode_backend=loader)
    image = devkit / "VOC2007" / "JPEGImages" / "test_000.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.open(image).save(image, exif=exif)
    alone = VOCFolder(devkit, "test", CLASSES, pipeline=[theirs])
    assert (alone.pipeline.transforms[0] is datasets.read_pixels) == (loader == "pillow")
    ours = alone[0]
    expected = LoadImageFromFile(imdecode_backend=loader)(alone.get_data_info(0))
    assert np.array_equal(ours["img"], expected["img"]) and ours["img"].flags.c_contiguous
    assert (ours["img_shape"], ours["ori_shape"]) == (expected["img_shape"], expected["ori_shape"])


def list_only(devkit, names, split="trainval", year="VOC2007"):
    (devkit / year / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def test_every_year_trains_and_2007_tests(devkit):
    train, test = (read_split(devkit, split) for split in ("train", "test"))
    assert len(train.names) == 10 and len(test.names) == 4
    assert [source.partition("/")[0] for source in train.sources] == ["VOC2007"] * 8 + ["VOC2012"] * 2
    (devkit / "VOC2012" / "ImageSets" / "Main" / "trainval.txt").unlink()
    assert len(read_split(devkit, "train").names) == 8


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
    assert read_split(devkit, "train").boxes[0, 0] == 2.5


def test_difficult_objects_train_and_are_ignored_in_the_test(devkit):
    for split, part in (("train", "gt_instances"), ("test", "ignored_instances")):
        dataset = VOCFolder(devkit, split, CLASSES, pipeline=LOAD)
        read = read_split(devkit, split)
        sample = dataset[datasets.owners_of(read.first)[read.ignored][0]]["data_samples"]
        assert len(sample.get(part)) == {"train": 3, "test": 1}[split]
        assert len(sample.gt_instances) + len(sample.ignored_instances) == 3


def test_images_without_objects_do_not_train_but_are_tested(devkit):
    for split in ("trainval", "test"):
        write_image(devkit / "VOC2007", f"empty_{split}", (96, 64), [])
        list_only(devkit, [f"{split}_000", f"empty_{split}"], split)
    assert len(VOCFolder(devkit, "train", CLASSES)) == 1 + 2
    test = VOCFolder(devkit, "test", CLASSES, pipeline=LOAD)
    assert len(test) == 2 and test[1]["data_samples"].gt_instances.bboxes.tensor.shape == (0, 4)


def test_a_box_without_area_does_not_train(devkit):
    whole, empty, outside = (1, 1, 20, 20), (31, 1, 30, 20), (97, 1, 99, 20)
    for split in ("trainval", "test"):
        write_image(devkit / "VOC2007", split, (96, 64), [("red", b, 0) for b in (whole, empty, outside)])
        list_only(devkit, [split], split)
    assert len(VOCFolder(devkit, "train", CLASSES).get_data_info(0)["instances"]) == 1
    with pytest.raises(UserError, match=r"test.xml: object 2 \('red'\) has a box that is without area .*\(1 more"):
        VOCFolder(devkit, "test", CLASSES)


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


def _remove_image(devkit):
    (devkit / "VOC2007" / "JPEGImages" / "test_001.jpg").unlink()
    return "there is no .*test_001.jpg"


@pytest.mark.parametrize("damage", [_remove_split, _empty_split, _remove_xml, _break_xml, _remove_image])
def test_what_is_wrong_with_a_folder_is_said_with_its_path(devkit, damage):
    read_split(devkit, "test").survey.refuse()
    message = damage(devkit)
    with pytest.raises(UserError, match=message):
        read_split(devkit, "test").survey.refuse()


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


def _jpeg(size, value):
    stream = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(stream, "JPEG")
    return stream.getvalue()


def test_the_facts_of_a_folder(devkit):
    write_image(devkit / "VOC2007", "empty", (96, 64), [])
    list_only(devkit, ["trainval_000", "trainval_001", "empty"])
    facts = VOCFolder.facts(devkit)
    assert (facts["train_images"], facts["test_images"], facts["classes"]) == (4, 4, list(CLASSES))
    before = VOCFolder.old_digest(devkit)
    files = {file for kind in ("*.jpg", "*.xml") for file in devkit.rglob(kind)}
    unlisted = {file for file in files if file.stem.startswith("trainval_00") and file.stem[-1] in "234567"}
    assert before == runs.data_digest(devkit, files - {f for f in unlisted if "VOC2007" in f.parts})
    write_image(devkit / "VOC2007", "empty", (96, 64), [])
    (devkit / "VOC2007" / "JPEGImages" / "empty.jpg").write_bytes(_jpeg((96, 64), 200))
    datasets._READ.clear()
    assert VOCFolder.facts(devkit)["digest"] == facts["digest"] and VOCFolder.old_digest(devkit) != before
    datasets._READ.clear()
    xml = devkit / "VOC2007" / "Annotations" / "trainval_000.xml"
    xml.write_text(xml.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    changed = VOCFolder.facts(devkit)["digest"]
    assert {part for part in changed if changed[part] != facts["digest"][part]} == {"annotations"}


XML = "VOC2007/Annotations/trainval_000.xml"
TESTED = "VOC2007/Annotations/test_000.xml"
JPEG = "VOC2007/JPEGImages/trainval_000.jpg"


def change(devkit, name, pattern, new):
    """Replace what a pattern matches first in an XML."""
    file = devkit / name
    text, times = re.subn(pattern, new, file.read_text(), count=1)
    assert times == 1
    file.write_text(text)


def in_elements(*changes, name=XML):
    return lambda devkit: [change(devkit, name, pattern, new) for pattern, new in changes]


def encoded(encoding, declared=None):
    def write(devkit):
        text = (devkit / XML).read_text().replace("<name>blue<", "<name>\u7ea2\u8272<")
        head = f'<?xml version="1.0" encoding="{declared or encoding}"?>\n'
        (devkit / XML).write_bytes((head + text).encode(encoding))

    return write


def listed(*lines, encoding="utf-8", end="\n"):
    def write(devkit):
        file = devkit / "VOC2007" / "ImageSets" / "Main" / "trainval.txt"
        file.write_bytes(end.join((*lines, "")).encode(encoding))

    return write


def renamed(new):
    def write(devkit):
        for part, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            folder = devkit / "VOC2007" / part
            (folder / f"trainval_000.{ending}").rename(folder / f"{new}.{ending}")

    return write


def beside(name, content=b"{}"):
    return lambda devkit: (devkit / "VOC2007" / "JPEGImages" / name).write_bytes(content)


def stored(turned=False, orientation=1):
    """The first image, wide, with EXIF's orientation; stored turned, or not."""

    def write(devkit):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.new("RGB", (64, 96) if turned else (96, 64)).save(devkit / JPEG, exif=exif)

    return write


def every(*writes):
    return lambda devkit: [write(devkit) for write in writes]


READ = {
    "size 0, as old labelImg writes it": in_elements((r"<width>\d+", "<width>0"), (r"<height>\d+", "<height>0")),
    "no size": in_elements((r"<size>.*</size>", "")),
    "an empty width": in_elements((r"<width>\d+", "<width>")),
    "size as a float": in_elements((r"<width>96", "<width>96.0")),
    "empty difficult": in_elements((r"<difficult>0</difficult>", "<difficult/>")),
    "no difficult": in_elements((r"<difficult>0</difficult>", "")),
    "difficult in words": in_elements((r"<difficult>0", "<difficult>False")),
    "spaces": in_elements((r"<xmin>(\d+)", r"<xmin> \1 "), (r"<name>(\w+)", r"<name> \1\n")),
    "fractions": in_elements((r"<xmin>(\d+)", r"<xmin>\1.25")),
    "parts": in_elements(
        (r"</object>", "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"),
    ),
    "a pixel beyond the border": in_elements((r"<xmin>\d+", "<xmin>0"), (r"<xmax>\d+", "<xmax>97")),
    "UTF-16": encoded("utf-16"),
    "UTF-8 with a mark": encoded("utf-8-sig", "utf-8"),
    "GBK": encoded("gbk"),
    "a list of names with an ending": listed("trainval_000.jpg"),
    "a list with labels": listed("trainval_000  1", "trainval_001 -1"),
    "a list of Windows": listed("trainval_000", end="\r\n", encoding="utf-8-sig"),
    "a list of an old Mac": listed("trainval_000", "trainval_001", end="\r"),
    "a list of PowerShell": listed("trainval_000", end="\r\n", encoding="utf-16"),
    "names with spaces": every(listed("a", "a (1)", " a b 1"), renamed("a (1)"), lambda d: _copies(d, "a", "a b 1")),
    "names not in UTF-8": every(
        lambda d: renamed(os.fsdecode(b"caf\xe9"))(d),
        lambda d: (d / "VOC2007/ImageSets/Main/trainval.txt").write_bytes(b"caf\xe9\n"),
    ),
    "a file beside the image": beside("trainval_000.json"),
    "two images of a name, one said": every(
        beside("trainval_000.png", b""), in_elements((r"<size>", "<filename>trainval_000.jpg</filename><size>"))
    ),
    "EXIF, annotated as seen": stored(turned=True, orientation=6),
    "EXIF, annotated as stored": stored(orientation=8),
}


def _copies(devkit, *names):
    for name in names:
        write_image(devkit / "VOC2007", name, (96, 64), [("blue", (1, 1, 20, 20), 0)])


@pytest.mark.parametrize("case", READ)
def test_what_has_one_meaning_is_read(devkit, case):
    expected = VOCFolder(devkit, "train").get_data_info(0)
    READ[case](devkit)
    datasets._READ.clear()
    split = read_split(devkit, "train")
    split.survey.refuse()
    dataset = VOCFolder(devkit, "train", pipeline=LOAD[:1])
    read = dataset[0]
    assert (read["width"], read["height"]) == (96, 64) == read["img"].shape[1::-1]
    assert len(read["instances"]) == 1
    if case in ("fractions", "a pixel beyond the border"):
        assert read["instances"][0]["bbox"][0] in (expected["instances"][0]["bbox"][0] + 0.25, -1)
    else:
        assert read["instances"][0]["bbox"] == expected["instances"][0]["bbox"] or "spaces" in case
    if case == "names with spaces":
        assert [os.path.basename(name) for name in split.names[:3]] == ["a.jpg", "a (1).jpg", "a b 1.jpg"]


def test_exif_turns_the_pixels_unless_the_boxes_are_of_the_image_as_stored(devkit):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter to the right
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = 255  # the left half, which comes to the top
    for size, bright in (((64, 96), "top"), ((96, 64), "left"), ((0, 0), "top")):
        Image.fromarray(pixels).save(devkit / JPEG, exif=exif)
        change(devkit, XML, r"<size>.*</size>", f"<size><width>{size[0]}</width><height>{size[1]}</height></size>")
        datasets._READ.clear()
        image = VOCFolder(devkit, "train", pipeline=LOAD[:1])[0]["img"]
        assert image.shape[:2] == ((64, 96) if bright == "left" else (96, 64))
        assert image[5, 5].min() > 200 and (image[-5, 5].min() > 200) == (bright == "left")
        noted = read_split(devkit, "train").survey.notes
        assert len(noted) == (size != (64, 96))


def test_sixteen_bits_are_scaled(devkit):
    (devkit / JPEG).unlink()
    Image.fromarray(np.full((64, 96), 40_000, np.uint16)).save((devkit / JPEG).with_suffix(".png"))
    assert set(np.unique(VOCFolder(devkit, "train", pipeline=LOAD[:1])[0]["img"])) == {40_000 >> 8}


def _large(devkit):
    Image.new("1", (20_000, 10_000)).save(devkit / JPEG, "PNG")


def _pipe(devkit):
    (devkit / JPEG).unlink()
    os.mkfifo(devkit / JPEG)


def _link(devkit):
    (devkit / JPEG).unlink()
    (devkit / JPEG).symlink_to("nowhere")


def _slim(devkit):
    Image.new("RGB", (500, 2)).save(devkit / JPEG)
    change(devkit, XML, r"<size>.*</size>", "")


REFUSED = {
    "width and height exchanged": (
        in_elements((r"<width>96", "<width>64"), (r"<height>64", "<height>96")),
        "trainval_000.xml says that its image has 64 x 96 pixels, but .*trainval_000.jpg has 96 x 64: correct",
    ),
    "negative width": (in_elements((r"<width>96", "<width>-5")), "its <width> is '-5'"),
    "width in words": (in_elements((r"<width>96", "<width>wide")), "its <width> is 'wide'"),
    "two sizes": (in_elements((r"<size>", "<size><width>96</width></size><size>")), "has 2 <width>"),
    "another root": (
        lambda d: (d / XML).write_text((d / XML).read_text().replace("annotation>", "note>")),
        "trainval_000.xml is no annotation in VOC's format .its root is <note>, not <annotation>",
    ),
    "an unknown encoding": (encoded("utf-8", "klingon"), "trainval_000.xml is no annotation in VOC's format"),
    "another encoding than it says": (encoded("gbk", "utf-8"), "trainval_000.xml is no annotation in VOC's format"),
    "no name": (in_elements((r"<name>\w+</name>", "")), "trainval_000.xml: object 1 has no <name>: correct it"),
    "an empty name": (in_elements((r"<name>\w+<", "<name> <")), "object 1 has no <name>"),
    "no box": (in_elements((r"<bndbox>.*?</bndbox>", "")), "object 1 has no <bndbox>"),
    "two boxes": (in_elements((r"(<bndbox>.*?</bndbox>)", r"\1\1")), "object 1 has 2 <bndbox>"),
    "an empty corner": (in_elements((r"<xmin>\d+</xmin>", "<xmin/>")), "object 1 has no <xmin>"),
    "a corner in words": (in_elements((r"<xmin>\d+", "<xmin>left")), "object 1 has 'left' for <xmin>, which is a"),
    "a corner with a comma": (in_elements((r"<xmin>\d+", "<xmin>1,5")), "object 1 has '1,5' for <xmin>"),
    "an odd difficult": (in_elements((r"<difficult>0", "<difficult>2")), "object 1 has '2' for <difficult>"),
    "a corner far away": (
        in_elements((r"<xmax>\d+", "<xmax>1e9")),
        r"object 1 \('blue'\) has a box that is beyond any",
    ),
    "a corner far outside": (in_elements((r"<xmax>\d+", "<xmax>500")), "a box that is far beyond the image"),
    "a name without an image": (
        listed("trainval_000", "ghost"),
        "trainval.txt names 'ghost', but there is no .*ghost.jpg",
    ),
    "two images of a name": (beside("trainval_000.png"), "its image may be trainval_000.jpg or trainval_000.png; say"),
    "a list that is no text": (
        lambda d: (d / "VOC2007/ImageSets/Main/trainval.txt").write_bytes(b"\xff\xfea"),
        "trainval.txt is no text .*: save it as UTF-8",
    ),
    "a list that is a folder": (
        every(
            lambda d: (d / "VOC2007/ImageSets/Main/trainval.txt").unlink(),
            lambda d: (d / "VOC2007/ImageSets/Main/trainval.txt").mkdir(),
        ),
        "trainval.txt cannot be read .Is a directory",
    ),
    "an image of one pixel": (
        lambda d: Image.new("RGB", (1, 1)).save(d / JPEG),
        "trainval_000.xml says that its image has 96 x 64 pixels, but .*trainval_000.jpg has 1 x 1: correct the size",
    ),
    "no image": (lambda d: (d / JPEG).write_bytes(b"no image"), "trainval_000.jpg is no readable image"),
    "a large image": (_large, "trainval_000.jpg is no readable image .it has .*pixels"),
    "a pipe": (_pipe, "trainval_000.jpg is no readable image .it is a pipe"),
    "a broken link": (_link, "trainval_000.jpg is no readable image .No such file"),
    "a slim image": (_slim, "has 500 x 2 pixels, and nothing is left of the shorter side"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_one_meaning_is_refused_before_training(devkit, case):
    write, sentence = REFUSED[case]
    write(devkit)
    with pytest.raises(UserError, match=sentence) as caught:
        VOCFolder.facts(devkit)
    assert "\n" not in str(caught.value)


ODD = {
    "inverted": ("<xmax>3</xmax>", "<xmin>20</xmin>"),
    "not finite": ("<xmax>nan</xmax>", "<xmin>1</xmin>"),
    "not finite, by overflow": ("<xmax>1e400</xmax>", "<xmin>1</xmin>"),
    "without area": ("<xmax>19</xmax>", "<xmin>20</xmin>"),
    "outside of the image": ("<xmax>130</xmax>", "<xmin>120</xmin>"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_box_is_left_out_of_the_training_and_refused_in_the_test(devkit, kind):
    odd = in_elements((r"<xmax>.*?</xmax>", ODD[kind][0]), (r"<xmin>.*?</xmin>", ODD[kind][1]))
    odd(devkit)
    survey, _ = VOCFolder.surveys(devkit)
    kind_of_box = f"boxes that are {kind.partition(',')[0]}"
    assert {name: found.times for name, found in survey.left_out.items()} == {
        kind_of_box: 1,
        "images without an object to train on": 1,
    }
    assert survey.left_out[kind_of_box].first == f"{XML}: object 1 ('blue')"
    assert (survey.images, survey.facts()["left_out"][kind_of_box]["count"]) == (9, 1)
    assert VOCFolder.facts(devkit)["train_images"] == len(VOCFolder(devkit, "train")) == 9
    in_elements((r"<xmax>.*?</xmax>", ODD[kind][0]), (r"<xmin>.*?</xmin>", ODD[kind][1]), name=TESTED)(devkit)
    datasets._READ.clear()
    with pytest.raises(UserError, match=rf"test_000.xml: object 1 .* has a box that is {kind.partition(',')[0]} \("):
        VOCFolder.facts(devkit)


def test_boxes_as_fractions_are_refused(tmp_path):
    devkit = make_devkit(tmp_path / "VOCdevkit", train=2, test=1)
    for xml in devkit.rglob("*.xml"):
        xml.write_text(
            re.sub(r"<(x|y)(min|max)>\d+", lambda m: f"<{m[1]}{m[2]}>0.{2 + 4 * (m[2] == 'max')}", xml.read_text())
        )
    with pytest.raises(UserError, match="all boxes of .* lie between 0 and 1, as fractions"):
        VOCFolder.facts(devkit)


def test_repeated_and_shared_names_are_said(devkit):
    listed("trainval_000", "trainval_001", "trainval_000", "test_000")(devkit)
    survey, _ = VOCFolder.surveys(devkit)
    assert survey.left_out["names that a list repeats"].first == "VOC2007/ImageSets/Main/trainval.txt: trainval_000"
    assert survey.notes[datasets.IN_BOTH].first == "VOC2007/JPEGImages/test_000.jpg"
    assert VOCFolder.surveys(devkit)[0].notes[datasets.IN_BOTH].times == 1
    assert "note: 1 images of the training that are tested, too (first: " in survey.line()


def test_a_list_of_the_test_repeats_nothing(devkit):
    list_only(devkit, ["test_000", "test_000.jpg"], "test")
    with pytest.raises(UserError, match="test.txt names 'test_000.jpg' twice: take one out, or the test would count"):
        VOCFolder.facts(devkit)


def test_a_number_behind_a_name_is_no_label_where_it_names_an_annotation(devkit):
    (devkit / "VOC2007" / "Annotations" / "test_000 2.xml").write_text("<annotation/>")
    list_only(devkit, ["test_000 2"], "test")
    with pytest.raises(UserError, match="test.txt names 'test_000 2', but there is no"):
        VOCFolder.facts(devkit)


def test_a_class_that_is_tested_alone_is_a_fault_of_the_survey(devkit):
    change(devkit, TESTED, r"<name>\w+", "<name>violet")
    assert "classes that do not train" in VOCFolder.surveys(devkit)[1].faults
    assert VOCFolder.facts(devkit, (*CLASSES, "violet"))["test_images"] == 4


def test_all_faults_are_found_without_an_error(devkit):
    in_elements((r"<name>\w+<", "<name><"))(devkit)
    (devkit / "VOC2007" / "Annotations" / "trainval_001.xml").write_text("<annotation>")
    (devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    train, test = VOCFolder.surveys(devkit)
    assert {kind: found.times for kind, found in (train.faults | test.faults).items()} == {
        "objects that cannot be read": 1,
        "annotations that cannot be read": 1,
        "lists that are missing": 1,
    }


def test_one_class_is_a_name(devkit):
    for xml in devkit.rglob("*.xml"):
        xml.write_text(re.sub(r"<name>\w+", "<name>ace", xml.read_text()))
    assert VOCFolder.facts(devkit, "ace")["classes"] == ["ace"]
    assert VOCFolder(devkit, "test", "ace").metainfo["classes"] == ("ace",)


def test_a_folder_is_read_once(devkit, monkeypatch):
    VOCFolder.facts(devkit)
    monkeypatch.setattr(VOCFolder, "read", None)
    assert len(VOCFolder(devkit, "train")) == 10 and len(VOCFolder(devkit, "test", CLASSES)) == 4
    VOCFolder.surveys(devkit), VOCFolder.old_digest(devkit)


def test_sizes_are_remembered_as_long_as_the_file_stays(devkit, monkeypatch):
    monkeypatch.setattr(imagefiles, "MANY", 4)
    read_split(devkit, "train")
    looked_into = []
    stored_size = images.stored_size
    monkeypatch.setattr(images, "stored_size", lambda path: looked_into.append(path) or stored_size(path))
    assert read_split(devkit, "train").sizes[0].tolist() == [96, 64] and not looked_into
    (devkit / JPEG).write_bytes(_jpeg((96, 64), 1))
    read_split(devkit, "train")
    assert looked_into == [str(devkit / JPEG)]
    memory.remember("sizes-train", devkit, {"VOC2007/JPEGImages/trainval_001.jpg": 5, "x": [1]})
    read_split(devkit, "train").survey.refuse()


@pytest.mark.parametrize("heavy", [True, False])
def test_what_is_tested_is_decoded_and_remembered(devkit, monkeypatch, heavy):
    monkeypatch.setattr(imagefiles, "HEAVY", 0 if heavy else 1e9)
    VOCFolder.check_test(devkit)
    decoded = []
    monkeypatch.setattr(images, "refusal", lambda path: decoded.append(path) or "")
    monkeypatch.setattr(images, "unreadable", lambda paths, what: decoded.extend(paths) or {})
    VOCFolder.check_test(devkit)
    assert len(decoded) == (0 if heavy else 4)
    monkeypatch.undo()
    monkeypatch.setattr(imagefiles, "HEAVY", 0 if heavy else 1e9)
    for name in ("test_001", "test_002"):
        file = devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg"
        file.write_bytes(file.read_bytes()[:-200])
    for _ in range(2):
        with pytest.raises(UserError, match=r"test_001.jpg is no readable image \(image file is truncated.*\(1 more"):
            VOCFolder.check_test(devkit)


def test_an_image_that_changes_later_is_named(devkit):
    dataset = VOCFolder(devkit, "test", CLASSES, pipeline=LOAD)
    image = devkit / "VOC2007" / "JPEGImages" / "test_000.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:-200])
    with pytest.raises(UserError, match="test_000.jpg is no readable image"):
        dataset[0]
    image.write_bytes(_jpeg((64, 96), 9))
    with pytest.raises(UserError, match="test_000.jpg has 64 x 96 pixels, and had 96 x 64 when the data set was read"):
        dataset[0]


@pytest.fixture(scope="module")
def small_devkit(tmp_path_factory):
    return make_devkit(tmp_path_factory.mktemp("property") / "VOCdevkit", train=1, test=1)


WORDS = [
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e400",
    "9" * 400,
    "1_0",
    "x",
    " 5 ",
    "<a/>",
    "&lt;",
    "<xmin>3</xmin>",
    "\u0663",
    "\0",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_annotation_is_read_or_refused(small_devkit, data):
    xml = small_devkit / "VOC2007" / "Annotations" / "trainval_000.xml"
    whole = xml.read_bytes()
    text = whole.decode()
    for _ in range(data.draw(st.integers(1, 3))):
        begin, end = sorted(data.draw(st.tuples(*[st.sampled_from([m.start() for m in re.finditer("<|>", text)])] * 2)))
        text = text[: begin + 1] + data.draw(st.sampled_from(WORDS)) + text[end:]
    content = text.encode(data.draw(st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "cp500"])), "replace")
    try:
        xml.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        survey = read_split(small_devkit, "train").survey
        assert all("\n" not in str(UserError(found.sentence)) for found in survey.faults.values())
    finally:
        xml.write_bytes(whole)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_any_list_is_read_or_refused(small_devkit, content):
    file = small_devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt"
    file.write_bytes(content)
    read_split(small_devkit, "test")
