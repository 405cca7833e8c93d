"""COCO folders: what trains, what is tested, in which order the classes are, and what is wrong with a folder."""

import json

import pytest
import torch

import transfer  # noqa: F401
from resim_bench.errors import UserError
from tests.transfer.conftest import CLASSES, COCO_RUNS, CROWD, EMPTY, coco_object, make_coco
from transfer.coco import COCOFolder, annotation_file, find_coco, read_split

PIPELINE = [
    dict(type="mmdet.LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs"),
]
LOAD = [PIPELINE[0], PIPELINE[1], PIPELINE[3]]


def edit(root, split, change):
    """Change the content of an annotation file in place."""
    file = annotation_file(root, split)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_the_folder_may_also_hold_coco(coco_folder):
    assert find_coco(coco_folder) == find_coco(coco_folder.parent) == coco_folder


def test_classes_are_the_categories_by_id(coco_folder):
    assert COCOFolder(coco_folder, "test").metainfo["classes"] == CLASSES == ("blue", "green", "red")
    edit(coco_folder, "train", lambda c: c["categories"].append({"id": 3, "name": "never"}))
    assert read_split(coco_folder, "train").classes == ("blue", "never", "green", "red")
    sample = COCOFolder(coco_folder, "train", ("red", "blue", "green"), pipeline=LOAD)[0]["data_samples"]
    assert sample.img_id == 10 and sample.gt_instances.labels.tolist() == [2, 0]  # green and red


def test_crowds_and_images_without_objects_do_not_train_but_are_tested(coco_folder):
    train, test = (COCOFolder(coco_folder, split, pipeline=LOAD) for split in ("train", "test"))
    assert [train[i]["data_samples"].img_id for i in range(len(train))] == list(range(10, 18))
    assert [test.get_data_info(i)["img_id"] for i in range(len(test))] == [*range(10, 14), CROWD, EMPTY]
    beside = train[0]["data_samples"]
    assert len(beside.gt_instances) == 2 and len(beside.ignored_instances) == 0


def test_boxes_and_outlines_are_continuous(coco_folder):
    sample = COCOFolder(coco_folder, "train", pipeline=LOAD)[2]["data_samples"]
    objects = read_split(coco_folder, "train").annotations[2].objects
    assert len(objects) == 1 and (sample.img_id, sample.ori_shape) == (12, (64, 96))
    assert sample.gt_instances.bboxes.tensor.tolist() == [list(objects[0].box)]
    x0, y0, x1, y1 = objects[0].box
    assert sample.gt_instances.masks.masks[0][0].tolist() == [x0, y0, x1, y0, x1, y1, x0, y1]


@pytest.mark.parametrize(
    "changes",
    [{"segmentation": []}, {"segmentation": [[1, 1, 2, 2]]}, {"segmentation": [[1, 1, 2, 2, 3, 3, 4]]}],
)
def test_an_object_without_a_valid_outline_does_not_train(coco_folder, changes):
    whole = len(COCOFolder(coco_folder, "train").get_data_info(1)["instances"])
    edit(coco_folder, "train", lambda c: c["annotations"].append(coco_object(11, "red", (1, 1, 5, 5), 99, **changes)))
    assert len(COCOFolder(coco_folder, "train").get_data_info(1)["instances"]) == whole == 3


def test_a_box_without_area_in_the_image_does_not_train(coco_folder):
    for number, box in enumerate([(5, 5, 5, 9), (200, 1, 210, 9)]):
        edit(
            coco_folder, "train", lambda c, b=box, n=number: c["annotations"].append(coco_object(11, "red", b, 90 + n))
        )
    assert len(COCOFolder(coco_folder, "train").get_data_info(1)["instances"]) == 3


def test_the_facts_of_a_folder(coco_folder):
    facts = COCOFolder.facts(coco_folder)
    assert (facts["train_images"], facts["test_images"], facts["classes"]) == (8, 6, list(CLASSES))
    edit(coco_folder, "test", lambda c: c.update(info="another file"))
    assert COCOFolder.facts(coco_folder)["digest"] != facts["digest"]


def test_a_sample_is_a_function_of_seed_and_draw(coco_folder):
    dataset = COCOFolder(coco_folder, "train", seed=1, pipeline=PIPELINE)

    def flips(order):
        return {draw: bool(dataset[draw, 0]["data_samples"].flip) for draw in order}

    first = flips(range(12))
    assert flips(reversed(range(12))) == first and set(first.values()) == {True, False}
    flipped = next(draw for draw in first if first[draw])
    mirrored = dataset[flipped, 0]["data_samples"].gt_instances
    straight = COCOFolder(coco_folder, "train", pipeline=LOAD)[0]["data_samples"].gt_instances
    assert torch.equal(mirrored.bboxes.tensor[:, 0], 96 - straight.bboxes.tensor[:, 2])


def _remove(root):
    annotation_file(root, "train").unlink()
    return "there is no .*instances_train2017.json: give a folder with annotations/"


def _cut_short(root):
    file = annotation_file(root, "train")
    file.write_text(file.read_text()[:500])
    return "cannot read .*instances_train2017.json, perhaps it is cut short"


def _another_format(root):
    annotation_file(root, "train").write_text('["a list"]')
    return "instances_train2017.json is not in COCO's format"


def _no_images(root):
    edit(root, "train", lambda c: c.update(images=[], annotations=[]))
    return "not in COCO's format .it names no image"


def _no_segmentation(root):
    edit(root, "train", lambda c: c["annotations"][3].pop("segmentation"))
    return "not in COCO's format .*annotation 4 has no segmentation"


def _run_lengths(root):
    edit(root, "train", lambda c: c["annotations"][3].update(segmentation=COCO_RUNS))
    return "annotation 4 is a run-length code, and only outlines train"


def _unknown_category(root):
    edit(root, "train", lambda c: c["annotations"][3].update(category_id=77))
    return "not in COCO's format .77 is missing or not known"


def _unknown_image(root):
    edit(root, "train", lambda c: c["annotations"][3].update(image_id=12345))
    return "not in COCO's format .12345 is missing or not known"


def _two_of_a_name(root):
    edit(root, "train", lambda c: c["categories"].append({"id": 9, "name": "red"}))
    return "not in COCO's format .a category has two ids"


def _no_image_file(root):
    (root / "train2017" / "000000000011.jpg").unlink()
    return "names '000000000011.jpg', but there is no .*train2017/000000000011.jpg"


@pytest.mark.parametrize(
    "damage",
    [
        _remove,
        _cut_short,
        _another_format,
        _no_images,
        _no_segmentation,
        _run_lengths,
        _unknown_category,
        _unknown_image,
        _two_of_a_name,
        _no_image_file,
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(coco_folder, damage):
    read_split(coco_folder, "train")
    message = damage(coco_folder)
    with pytest.raises(UserError, match=message) as caught:
        read_split(coco_folder, "train")
    assert "\n" not in str(caught.value)


def test_an_object_of_the_test_needs_an_outline(coco_folder):
    edit(coco_folder, "test", lambda c: c["annotations"][0].update(segmentation=[]))
    with pytest.raises(UserError, match="instances_val2017.json is not .*annotation 1 has no valid outline"):
        read_split(coco_folder, "test")


def test_run_lengths_are_fine_in_the_test(coco_folder):
    edit(coco_folder, "test", lambda c: c["annotations"][0].update(segmentation=COCO_RUNS))
    assert len(read_split(coco_folder, "test").annotations) == 6


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_coco(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no annotations/"):
        find_coco(tmp_path)


def test_a_class_that_a_given_list_lacks_is_refused(coco_folder):
    with pytest.raises(UserError, match="instances_train2017.json has an object of class 'green', which is not among"):
        COCOFolder(coco_folder, "train", ("blue", "red"))


def test_there_must_be_something_to_train_on_and_to_find(tmp_path):
    for split, name in (("train", "training"), ("test", "test")):
        root = make_coco(tmp_path / split)
        edit(root, split, lambda c: c.update(annotations=[a for a in c["annotations"] if a["iscrowd"]]))
        with pytest.raises(UserError, match=f"no image of the {name} split in .* has an object that counts"):
            COCOFolder.facts(root)


def test_an_image_that_cannot_be_read_is_named(coco_folder):
    (coco_folder / "train2017" / "000000000010.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="000000000010.jpg is no readable image"):
        COCOFolder(coco_folder, "train", pipeline=LOAD)[0]
