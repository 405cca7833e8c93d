"""COCO folders: what trains, what is tested, in which order the classes are, and what is wrong with a folder."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_length

import transfer  # noqa: F401
from resim_bench.errors import UserError
from resim_bench.harness import runs
from tests.transfer.conftest import CLASSES, COCO_RUNS, CROWD, EMPTY, coco_object, make_coco
from transfer import coco, datasets
from transfer.coco import COCOFolder, COCOPersons, annotation_file, find_coco, read_split, run_length_problem
from transfer.masks import run_lengths

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
    datasets._READ.clear()


def test_the_folder_may_also_hold_coco(coco_folder):
    assert find_coco(coco_folder) == find_coco(coco_folder.parent) == coco_folder


def test_classes_are_the_categories_by_id(coco_folder):
    assert COCOFolder(coco_folder, "test").metainfo["classes"] == CLASSES == ("blue", "green", "red")
    edit(coco_folder, "train", lambda c: c["categories"].append({"id": 3, "name": "never"}))
    assert read_split(coco_folder, "train").classes == ("blue", "never", "green", "red")
    sample = COCOFolder(coco_folder, "train", ("red", "blue", "green"), pipeline=LOAD)[0]["data_samples"]
    assert sample.img_id == 1 and sample.gt_instances.labels.tolist() == [2, 0]  # green and red


def test_crowds_and_images_without_objects_do_not_train_but_are_tested(coco_folder):
    train, test = (COCOFolder(coco_folder, split, pipeline=LOAD) for split in ("train", "test"))
    assert [train[i]["data_samples"].img_id for i in range(len(train))] == list(range(1, 9))
    names = [f"{number:012d}.jpg" for number in (*range(10, 14), CROWD, EMPTY)]
    assert [test.get_data_info(i)["img_path"].rpartition("/")[2] for i in range(len(test))] == names
    beside = train[0]["data_samples"]
    assert len(beside.gt_instances) == 2 and len(beside.ignored_instances) == 0


def test_boxes_and_outlines_are_continuous(coco_folder):
    sample = COCOFolder(coco_folder, "train", pipeline=LOAD)[2]["data_samples"]
    split = read_split(coco_folder, "train")
    boxes = split.boxes[split.first[2] : split.first[3]].tolist()
    assert len(boxes) == 1 and (sample.img_id, sample.ori_shape) == (3, (64, 96))
    assert sample.gt_instances.bboxes.tensor.tolist() == boxes
    x0, y0, x1, y1 = boxes[0]
    assert sample.gt_instances.masks.masks[0][0].tolist() == [x0, y0, x1, y0, x1, y1, x0, y1]


NO_OUTLINES = {
    "objects without an outline": [],
    "objects without an outline of three whole points": [[1, 1, 2, 2], [1, 1, 2, 2, 3, 3, 4]],
}


@pytest.mark.parametrize("kind", NO_OUTLINES)
def test_an_object_without_a_valid_outline_does_not_train(coco_folder, kind):
    whole = len(COCOFolder(coco_folder, "train", pipeline=LOAD).get_data_info(1)["instances"])
    added = coco_object(11, "red", (1, 1, 5, 5), 99, segmentation=NO_OUTLINES[kind])
    edit(coco_folder, "train", lambda c: c["annotations"].append(added))
    dataset = COCOFolder(coco_folder, "train", pipeline=LOAD)
    assert len(dataset.get_data_info(1)["instances"]) == whole == 3
    assert dataset.reading.survey.left_out[kind].first == "annotation 99"


def test_a_short_outline_beside_a_good_one_is_left_out_of_the_training(coco_folder):
    edit(coco_folder, "train", lambda c: c["annotations"][0]["segmentation"].insert(0, [1, 1, 2, 2]))
    dataset = COCOFolder(coco_folder, "train", pipeline=LOAD)
    assert [len(outlines) for outlines in dataset.get_data_info(0)["instances"][0]["mask"]] == [8]
    assert dataset.reading.survey.left_out["outlines without three whole points"].times == 1


def test_without_masks_no_outline_is_needed(coco_folder):
    for split in ("train", "test"):
        edit(coco_folder, split, lambda c: [a.update(segmentation=[]) for a in c["annotations"][::2]])
        edit(coco_folder, split, lambda c: [a.pop("segmentation") for a in c["annotations"][1::2]])
    facts = COCOFolder.facts(coco_folder, masks=False)
    assert (facts["train_images"], facts["test_images"]) == (8, 6) == (8, len(COCOFolder(coco_folder, "test")))
    assert COCOFolder.surveys(coco_folder)[0].objects == COCOFolder.surveys(coco_folder, False)[0].objects
    with pytest.raises(UserError, match="no image of the training split in .* has an object that counts"):
        COCOFolder.facts(coco_folder, masks=True)


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
    changed = COCOFolder.facts(coco_folder)["digest"]
    assert {part for part in changed if changed[part] != facts["digest"][part]} == {"annotations"}
    assert COCOFolder.old_digest(coco_folder) == runs.data_digest(
        coco_folder, {file for kind in ("*.jpg", "*.json") for file in coco_folder.rglob(kind)}
    )


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


def of(name, change, split="train"):
    """Change the lists of a file."""
    return lambda root: edit(root, split, lambda content: change(content[name]))


def first(split="train", **changes):
    """Change the first annotation, or what is named `image` or `category`."""
    return of("annotations", lambda entries: entries[0].update(changes), split)


def text(content):
    return lambda root: annotation_file(root, "train").write_bytes(content)


def _folders(root):
    (root / "train2017" / "fold1").mkdir()
    for image in (root / "train2017").glob("*.jpg"):
        image.rename(image.parent / "fold1" / image.name)
    of("images", lambda entries: [e.update(file_name=f"fold1/{e['file_name']}") for e in entries])(root)


def _named(prefix):
    return of("images", lambda entries: [e.update(file_name=prefix + e["file_name"]) for e in entries])


def _rewritten(encoding):
    def write(root):
        file = annotation_file(root, "train")
        file.write_bytes(file.read_text().encode(encoding))

    return write


def _sides(**changes):
    return of("images", lambda entries: [entry.update(changes) for entry in entries])


def _crowd_as_text(root):
    pixels = run_length.frPyObjects(COCO_RUNS, *COCO_RUNS["size"])
    compressed = {"size": COCO_RUNS["size"], "counts": pixels["counts"].decode()}
    of("annotations", lambda e: [a.update(segmentation=compressed) for a in e if a["iscrowd"]])(root)


READ = {
    "a mark of UTF-8": _rewritten("utf-8-sig"),
    "UTF-16": _rewritten("utf-16"),
    "folders": _folders,
    "a folder that is not there": _named("images/"),
    "the split's own folder": _named("train2017/"),
    "a folder of Windows": _named("images\\"),
    "no sizes": _sides(width=0, height=None),
    "sizes as text": of("images", lambda e: [i.update(width=str(i["width"]), height=f" {i['height']} ") for i in e]),
    "boxes as text": of("annotations", lambda e: [a.update(bbox=[str(side) for side in a["bbox"]]) for a in e]),
    "outlines as text": of(
        "annotations",
        lambda e: [a.update(segmentation=[list(map(str, a["segmentation"][0]))]) for a in e if not a["iscrowd"]],
    ),
    "outlines without a list around": of(
        "annotations", lambda e: [a.update(segmentation=a["segmentation"][0]) for a in e if not a["iscrowd"]]
    ),
    "iscrowd in words": of("annotations", lambda e: [a.update(iscrowd=bool(a["iscrowd"])) for a in e]),
    "no iscrowd": of("annotations", lambda e: [a.pop("iscrowd") for a in e if not a["iscrowd"]]),
    "areas as text": of("annotations", lambda e: [a.update(area=str(a["area"])) for a in e]),
    "no areas": of("annotations", lambda e: [a.pop("area") for a in e]),
    "ids of annotations from 0": of("annotations", lambda e: [a.update(id=k) for k, a in enumerate(e)]),
    "ids of annotations as text": of("annotations", lambda e: [a.update(id=str(a["id"])) for a in e]),
    "ids of categories as text": of("annotations", lambda e: [a.update(category_id=str(a["category_id"])) for a in e]),
    "compressed crowds": _crowd_as_text,
}


@pytest.mark.parametrize("case", READ)
def test_what_has_one_meaning_is_read(coco_folder, case):
    def seen():
        dataset = COCOFolder(coco_folder, "train", pipeline=LOAD)
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        return [info | {"img_path": info["img_path"].rpartition("/")[2]} for info in infos], dataset[0]

    expected, _ = seen()
    READ[case](coco_folder)
    datasets._READ.clear()
    infos, sample = seen()
    assert infos == expected and sample["inputs"].shape[1:] == (64, 96)


def _twice(name):
    return of(name, lambda entries: entries.append(dict(entries[0])))


def _no_file(root):
    (root / "train2017" / "000000000011.jpg").unlink()


def _no_folder(root):
    for file in (root / "train2017").iterdir():
        file.unlink()
    (root / "train2017").rmdir()


REFUSED = {
    "no file": (
        lambda r: annotation_file(r, "train").unlink(),
        "there is no .*instances_train2017.json: give a folder",
    ),
    "cut short": (text(b'{"images": ['), "cannot read .*instances_train2017.json, perhaps it is cut short"),
    "deep": (text(b"[" * 200_000), "cannot read .*instances_train2017.json"),
    "no text": (text(b"\xff\xff\xff"), "cannot read .*instances_train2017.json"),
    "another format": (text(b'["a list"]'), "instances_train2017.json is not in COCO's format .it is no object with"),
    "no annotations": (lambda r: edit(r, "train", lambda c: c.pop("annotations")), "it has no list of annotations"),
    "no images": (lambda r: edit(r, "train", lambda c: c.update(images=[], annotations=[])), "it names no image"),
    "a list of no entries": (of("annotations", lambda e: e.append(5)), "annotation number 20 is no object with"),
    "an image of no id": (of("images", lambda e: e[0].pop("id")), "the image {.*: it has no id"),
    "an image twice": (_twice("images"), "the image 10: another has the id 10, too"),
    "a file twice": (
        of("images", lambda e: e[0].update(file_name=e[1]["file_name"])),
        "11: another is of the same file",
    ),
    "a category twice": (_twice("categories"), "the category 7: another has the id 7, too"),
    "two of a name": (of("categories", lambda e: e.append({"id": 9, "name": "red"})), "another is called 'red', too"),
    "a category without a name": (of("categories", lambda e: e[0].update(name=None)), "category 7: its name is null"),
    "a category of a number": (of("categories", lambda e: e[0].update(name=5)), "category 7: its name is 5"),
    "an annotation twice": (_twice("annotations"), "annotation 1 is there twice: correct it, or take it out"),
    "no such category": (first(category_id=77), "annotation 1 is of category 77, which is not listed"),
    "no such image": (first(image_id=12345), "annotation 1 is of image 12345, which is not listed"),
    "no image_id": (of("annotations", lambda e: e[0].pop("image_id")), "annotation 1 has no image_id"),
    "an image_id of a list": (first(image_id=[1]), r"annotation 1 is of image \[1\], which is not listed"),
    "no box": (of("annotations", lambda e: e[0].pop("bbox")), "annotation 1 has null for bbox, which is .x, y, width"),
    "a box of three": (first(bbox=[1, 2, 3]), r"annotation 1 has \[1, 2, 3\] for bbox"),
    "a box of words": (first(bbox=["a", 2, 3, 4]), 'annotation 1 has "a" for bbox, which is a number'),
    "a box of nothing": (first(bbox=[None, 2, 3, 4]), "annotation 1 has null for bbox, which is a number"),
    "a box far away": (first(bbox=[1, 1, 1e8, 5]), "annotation 1 has a box that is beyond any image"),
    "a box far outside": (first(bbox=[1, 1, 400, 5]), "annotation 1 has a box that is far beyond the image"),
    "a wrong iscrowd": (first(iscrowd=2), "annotation 1 has 2 for iscrowd, which is 0 or 1"),
    "iscrowd in other words": (first(iscrowd="no"), 'annotation 1 has "no" for iscrowd'),
    "an area in words": (first(area="big"), 'annotation 1 has "big" for area, which is a number'),
    "a negative area": (first(area=-1), "annotation 1 has an area of -1, which is a number from 0"),
    "an area that is none": (first(area=math.nan), "annotation 1 has an area of nan"),
    "an endless area": (first(area=math.inf), "annotation 1 has an area of inf"),
    "a segmentation of a number": (first(segmentation=5), "annotation 1 has 5 for segmentation, which is a list of"),
    "a segmentation of text": (first(segmentation="abc"), 'annotation 1 has "abc" for segmentation'),
    "an outline of words": (
        first(segmentation=[["a"] * 6]),
        'annotation 1 has "a" for segmentation, which is a number',
    ),
    "an outline that is none": (first(segmentation=[[1, 1, 9, 1, math.nan, 9]]), "annotation 1 has an outline that is"),
    "an outline far away": (first(segmentation=[[1, 1, 9, 1, 1e9, 9]]), "annotation 1 has an outline that is not"),
    "run lengths that train": (first(segmentation=COCO_RUNS), "annotation 1 is a run-length code, and only outlines"),
    "broken run lengths": (first(segmentation={"size": [64, 96], "counts": [1, 2]}), "code that covers 3 of 6144 pix"),
    "other run lengths": (
        first(iscrowd=1, segmentation={"size": [96, 64], "counts": [6144]}),
        r"code of \[96, 64\], and",
    ),
    "sizes exchanged": (
        of("images", lambda e: e[0].update(width=e[0]["height"], height=e[0]["width"])),
        "the image train2017/000000000010.jpg says that its image has 64 x 96 pixels, but .* has 96 x 64",
    ),
    "a width in words": (of("images", lambda e: e[0].update(width="w")), 'the image 10: has "w" for width'),
    "a negative width": (of("images", lambda e: e[0].update(width=-1)), "the image 10: its width is -1"),
    "no file_name": (of("images", lambda e: e[0].pop("file_name")), "the image 10: its file_name is null"),
    "a file_name elsewhere": (_named("../val2017/"), "its file_name .* leaves .*train2017"),
    "an absolute file_name": (_named("/data/"), "its file_name .* leaves .*train2017"),
    "no image": (_no_file, "names '000000000011.jpg', but there is no .*train2017/000000000011.jpg: restore it"),
    "no folder": (_no_folder, "train2017 cannot be read .No such file or directory"),
    "no pixels": (
        lambda r: (r / "train2017" / "000000000010.jpg").write_bytes(b"no image"),
        "000000000010.jpg is no readable image",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_one_meaning_is_refused_before_training(coco_folder, case):
    write, sentence = REFUSED[case]
    write(coco_folder)
    datasets._READ.clear()
    with pytest.raises(UserError, match=sentence) as caught:
        COCOFolder.facts(coco_folder, masks=True)
    assert "\n" not in str(caught.value)


TEST_REFUSED = {
    "no outline": (dict(segmentation=[]), "annotation 1 has no outline"),
    "a short outline": (
        dict(segmentation=[[1, 1, 2, 2], [1, 1, 9, 1, 9, 9]]),
        "annotation 1 has an outline without three whole points",
    ),
    "a box without area": (dict(bbox=[5, 5, 0, 9]), "annotation 1 has a box that is without area"),
    "an inverted box": (dict(bbox=[50, 5, -20, 9]), "annotation 1 has a box that is inverted"),
    "a box outside": (dict(bbox=[120, 5, 9, 9]), "annotation 1 has a box that is outside of the image"),
    "a box that is none": (dict(bbox=[math.nan, 5, 9, 9]), "annotation 1 has a box that is not finite"),
    "broken run lengths": (
        dict(segmentation={"size": [64, 96], "counts": "!"}),
        "annotation 1 has a run-length code whose counts are",
    ),
}


@pytest.mark.parametrize("case", TEST_REFUSED)
def test_what_cannot_be_found_is_refused_in_the_test(coco_folder, case):
    changes, sentence = TEST_REFUSED[case]
    edit(coco_folder, "test", lambda c: c["annotations"][0].update(changes))
    with pytest.raises(UserError, match=f"instances_val2017.json: {sentence}"):
        COCOFolder.facts(coco_folder, masks=True)


def test_run_lengths_are_fine_in_the_test(coco_folder):
    edit(coco_folder, "test", lambda c: c["annotations"][0].update(segmentation=COCO_RUNS))
    split = read_split(coco_folder, "test", True)
    split.survey.refuse()
    assert split.masks[0] == COCO_RUNS and len(split.names) == 6


OFFICIAL = {
    "a box a little beyond the border": dict(bbox=[-0.4, 10.2, 96.8, 20.33]),
    "a box without area": dict(bbox=[5.5, 5.5, 0.0, 9.1]),
    "outlines of several parts": dict(segmentation=[[1, 1, 9, 1, 9, 9], [20.5, 20, 29, 20, 29.25, 29]]),
    "an outline beyond the border": dict(segmentation=[[-0.5, 1, 96.7, 1, 9, 64.3]]),
    "a tiny area": dict(area=0.03),
}


@pytest.mark.parametrize("case", OFFICIAL)
def test_the_oddities_of_coco_itself_are_accepted(coco_folder, case):
    edit(coco_folder, "train", lambda c: c["annotations"][0].update(OFFICIAL[case]))
    if "without area" not in case:
        edit(coco_folder, "test", lambda c: c["annotations"][0].update(OFFICIAL[case]))
    assert COCOFolder.facts(coco_folder, masks=True)["train_images"] == 8


def test_the_survey_says_what_is_left_out(coco_folder):
    train, test = COCOFolder.surveys(coco_folder, True)
    assert train.line() == (
        f"{coco_folder}, train: 8 images, 17 objects of 3 classes; left out: 2 crowds (first: annotation 18), "
        "2 images without an object to train on (first: train2017/000000000900.jpg)"
    )
    assert (test.images, test.objects, test.left_out, test.faults) == (6, 10, {}, {})


def test_all_faults_are_found_without_an_error(coco_folder):
    edit(coco_folder, "train", lambda c: [a.update(iscrowd=5) for a in c["annotations"][:3]])
    edit(coco_folder, "train", lambda c: c["images"][0].update(width=1))
    annotation_file(coco_folder, "test").write_text("{")
    train, test = COCOFolder.surveys(coco_folder)
    assert {kind: found.times for kind, found in (train.faults | test.faults).items()} == {
        "annotations that cannot be used": 3,
        "sizes that are not the image's": 1,
        "annotation files that cannot be read": 1,
    }


def test_a_missing_area_is_that_of_the_mask_or_the_box(coco_folder):
    triangle = dict(area=None, segmentation=[[10, 10, 30, 10, 10, 30]], bbox=[10, 10, 20, 20])
    edit(coco_folder, "test", lambda c: c["annotations"][0].update(triangle))
    assert read_split(coco_folder, "test", True).areas[0] == pytest.approx(200, abs=15)
    assert read_split(coco_folder, "test", False).areas[0] == 400


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=12))
def test_run_lengths_are_checked_as_pycocotools_codes_them(counts):
    size = [sum(counts) or 1, 1]
    counts = counts if sum(counts) else [1]
    code = run_length.frPyObjects({"size": size, "counts": counts}, *size)["counts"].decode()
    assert run_lengths([code.encode()])[0].tolist() == counts
    assert run_length_problem({"size": size, "counts": code}) == ""
    assert run_length_problem({"size": [size[0] + 1, 1], "counts": code})
    assert run_length_problem({"size": size, "counts": code + "o"})


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12) | st.lists(st.integers(-3, 9) | st.floats() | st.none(), max_size=5) | st.none())
def test_any_run_lengths_are_whole_or_refused(counts):
    code = {"size": [4, 3], "counts": counts}
    if not run_length_problem(code):
        assert run_length.decode(run_length.frPyObjects(code, 4, 3) if isinstance(counts, list) else code).shape == (
            4,
            3,
        )


@pytest.fixture(scope="module")
def small_coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("property") / "coco", train=2, test=1)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10, "1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), split=st.sampled_from(["train", "test"]), masks=st.sampled_from([None, True, False]))
def test_any_annotation_file_is_read_or_refused(small_coco, data, split, masks):
    file = annotation_file(small_coco, split)
    whole = file.read_text()
    content = json.loads(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        while True:
            key = data.draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
            if not isinstance(place[key], list | dict) or not place[key] or data.draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        if data.draw(st.booleans()) and isinstance(place, dict) and len(place) > 1:
            del place[key]
        else:
            place[key] = data.draw(ANY)
    try:
        file.write_text(json.dumps(content))
        split = read_split(small_coco, split, masks)
        if not split.survey.faults and file.name.startswith("instances_val"):
            coco.ground_truth(split, split.classes, bool(split.masks))
    finally:
        file.write_text(whole)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_coco(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no annotations/"):
        find_coco(tmp_path)


def test_a_class_that_a_given_list_lacks_is_refused(coco_folder):
    with pytest.raises(UserError, match=r"instances_train2017.json has an object of class 'green', which is not among"):
        COCOFolder(coco_folder, "train", ("blue", "red"))


def test_there_must_be_something_to_train_on_and_to_find(tmp_path):
    for split, name in (("train", "training"), ("test", "test")):
        root = make_coco(tmp_path / split)
        edit(root, split, lambda c: c.update(annotations=[a for a in c["annotations"] if a["iscrowd"]]))
        with pytest.raises(UserError, match=f"no image of the {name} split in .* has an object that counts"):
            COCOFolder.facts(root)


def person(content):
    """Blue is a person."""
    for entry in content["categories"]:
        entry["name"] = {"blue": "person"}.get(entry["name"], entry["name"])


def test_persons_alone_are_found_and_all_images_tested(coco_folder):
    for split in ("train", "test"):
        edit(coco_folder, split, person)
    for split in ("train", "test"):
        every, persons = read_split(coco_folder, split), COCOPersons.read(coco_folder, split)
        label = every.classes.index("person")
        assert list(persons.classes) == ["person"] and set(persons.labels.tolist()) == {0}
        assert persons.boxes.tolist() == every.boxes[every.labels == label].tolist()
        assert persons.names == every.names
        outlines = [every.masks[k] for k in (every.labels == label).nonzero()[0]]
        assert [persons.masks[k] for k in range(len(outlines))] == outlines
    trained = COCOPersons(coco_folder, "train", pipeline=LOAD)
    assert len(trained) < len(COCOFolder(coco_folder, "train", pipeline=LOAD)), "images without one teach nothing"
    assert trained.metainfo["classes"] == ("person",)
    assert all((trained[i]["data_samples"].gt_instances.labels == 0).all() for i in range(len(trained)))
    facts = COCOPersons.facts(coco_folder)
    assert facts["classes"] == ["person"] and facts["test_images"] == COCOFolder.facts(coco_folder)["test_images"]


def test_a_folder_without_persons_is_said(coco_folder):
    with pytest.raises(
        UserError, match=r"lists no category 'person', the one that is looked for: add it, or take anot"
    ):
        COCOPersons(coco_folder, "train")


def test_what_is_wrong_with_other_categories_is_said_of_persons_too(coco_folder):
    def break_another(content):
        person(content)
        label = next(entry["id"] for entry in content["categories"] if entry["name"] == "green")
        next(entry for entry in content["annotations"] if entry["category_id"] == label)["bbox"] = "wide"

    edit(coco_folder, "train", break_another)
    with pytest.raises(UserError, match=r'has "wide" for bbox'):
        COCOPersons(coco_folder, "train")
