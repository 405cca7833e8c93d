"""VOC folders: coordinates, difficult objects, classes, draws, and what is wrong with a folder."""

import random

import numpy as np
import pytest
import torch

import transfer  # noqa: F401
from resim_bench.errors import UserError
from tests.transfer.conftest import CLASSES, write_image
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


def test_the_image_is_in_one_piece_after_it_is_loaded(devkit):
    seen = []
    after = [PIPELINE[0], lambda results: seen.append(results["img"]) or results]
    alone = VOCFolder(devkit, "test", CLASSES, pipeline=after)
    alone[0]
    assert seen[0].flags.c_contiguous
    loaded = alone.pipeline.transforms[0](alone.get_data_info(0))["img"]
    assert np.array_equal(seen[0], loaded) and not loaded.flags.c_contiguous


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


def test_a_box_without_area_does_not_train(devkit):
    whole, empty, outside = (1, 1, 20, 20), (31, 1, 30, 20), (97, 1, 99, 20)
    for split in ("trainval", "test"):
        write_image(devkit / "VOC2007", split, (96, 64), [("red", b, 0) for b in (whole, empty, outside)])
        list_only(devkit, [split], split)
    assert len(VOCFolder(devkit, "train", CLASSES).get_data_info(0)["instances"]) == 1
    assert len(VOCFolder(devkit, "test", CLASSES).get_data_info(0)["instances"]) == 3


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
    (devkit / "VOC2007" / "Annotations" / "test_001.xml").write_text("<annotation></annotation>")
    return "test_001.xml is no annotation"


def _remove_image(devkit):
    (devkit / "VOC2007" / "JPEGImages" / "test_001.jpg").unlink()
    return "there is no .*test_001.jpg"


@pytest.mark.parametrize("damage", [_remove_split, _empty_split, _remove_xml, _break_xml, _strip_xml, _remove_image])
def test_what_is_wrong_with_a_folder_is_said_with_its_path(devkit, damage):
    read_split(devkit, "test")
    message = damage(devkit)
    with pytest.raises(UserError, match=message):
        read_split(devkit, "test")


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
    (devkit / "VOC2007" / "JPEGImages" / "empty.jpg").write_bytes(b"repaired")
    assert VOCFolder.facts(devkit)["digest"] == facts["digest"] and VOCFolder.old_digest(devkit) != before
    xml = devkit / "VOC2007" / "Annotations" / "trainval_000.xml"
    xml.write_text(xml.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    changed = VOCFolder.facts(devkit)["digest"]
    assert {part for part in changed if changed[part] != facts["digest"][part]} == {"annotations"}


def test_odd_names_and_elements_are_read(devkit):
    """A name with a space, a file beside the images that is none, an empty <difficult/>."""
    year = devkit / "VOC2007"
    for part, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (year / part / f"trainval_001.{ending}").rename(year / part / f"trainval_000 (1).{ending}")
    (year / "JPEGImages" / "trainval_000.json").write_text("{}")
    xml = year / "Annotations" / "trainval_000.xml"
    xml.write_text(xml.read_text().replace("<difficult>0</difficult>", "<difficult/>"))
    list_only(devkit, ["trainval_000", "trainval_000 (1)"])
    names = [a.image.name for a in VOCFolder.read(devkit, "train").annotations if a.image.parent.parent == year]
    assert names == ["trainval_000.jpg", "trainval_000 (1).jpg"]


@pytest.mark.parametrize("corner", ["nan", "inf", "1e400", "-5000"])
def test_a_box_that_is_none_is_refused(devkit, corner):
    xml = devkit / "VOC2007" / "Annotations" / "trainval_000.xml"
    text = xml.read_text()
    start = text.index("<xmax>") + len("<xmax>")
    xml.write_text(text[:start] + corner + text[text.index("</xmax>") :])
    with pytest.raises(UserError, match=r"trainval_000.xml is no annotation in VOC's format \(a box from"):
        VOCFolder.facts(devkit)


@pytest.mark.parametrize("content", [b"", b"no image", "cut short"])
def test_an_image_that_cannot_be_read_is_named(devkit, content):
    image = devkit / "VOC2007" / "JPEGImages" / "test_000.jpg"
    image.write_bytes(image.read_bytes()[:300] if content == "cut short" else content)
    dataset = VOCFolder(devkit, "test", CLASSES, pipeline=LOAD)
    with pytest.raises(UserError, match="cannot read the image .*test_000.jpg"):
        dataset[0]
