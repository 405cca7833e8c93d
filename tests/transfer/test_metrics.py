"""VOC's metric against its twin, COCO's against counts by hand, and what both promise one sentence at a time."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from pycocotools import mask as run_length

from tests.references import voc_ap
from tests.transfer.conftest import CATEGORIES, CLASSES, COCO_RUNS, coco_object
from transfer.coco import COCOFolder, annotation_file
from transfer.detections import Detections, Images, gather
from transfer.metrics import (
    COCO_EVALUATORS,
    IOUS,
    RECALLS,
    THRESHOLDS,
    COCOAveragePrecision,
    VOCAveragePrecision,
    as_printed,
    coco_average_precision,
    voc_average_precision,
)

TALL_RUNS = COCO_RUNS | {"size": COCO_RUNS["size"][::-1]}  # of image 11
BOX = [10.0, 10.0, 30.0, 30.0]


def image(*objects):
    """Detections from (box, score, label), or ground truth from (box, label, difficult)."""
    third = "scores" if objects and isinstance(objects[0][1], float) else "difficult"
    boxes = np.array([o[0] for o in objects]).reshape(-1, 4)
    if third == "scores":
        return {
            "boxes": boxes,
            "scores": np.array([o[1] for o in objects]),
            "labels": np.array([o[2] for o in objects]),
        }
    return {
        "boxes": boxes,
        "labels": np.array([o[1] for o in objects], int),
        "difficult": np.array([o[2] for o in objects], bool),
    }


NOTHING = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}


def random_case(seed, images=12, classes=4, present=3):
    """Detections scattered around the objects, with ties, difficult objects, classes and images without any."""
    rng = np.random.default_rng(seed)
    detections, ground_truth = [], []
    for _ in range(images):
        m = rng.integers(0, 5)
        corner, size = rng.uniform(0, 60, (m, 2)), rng.uniform(10, 40, (m, 2))
        boxes, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, present, m)
        ground_truth.append({"boxes": boxes, "labels": labels, "difficult": rng.random(m) < 0.25})
        copies = np.repeat(np.arange(m), 4)
        near = boxes[copies] + rng.normal(0, 2.5, (len(copies), 4))
        far = rng.uniform(0, 50, (3, 2))
        detected = np.concatenate([near, np.concatenate([far, far + 20], 1)])
        label = np.concatenate([labels[copies], rng.integers(0, classes, 3)])
        order = rng.permutation(len(detected))
        scores = rng.integers(1, 8, len(detected)) / 8
        detections.append({"boxes": detected[order], "scores": scores[order], "labels": label[order]})
    return detections, ground_truth


def together(detections, ground_truth, classes):
    """`Detections` of both sides, image by image."""
    truth = [
        {"box": image["boxes"], "label": image["labels"], "ignored": image["difficult"], "area": image["labels"]}
        for image in ground_truth
    ]
    found = [{"box": image["boxes"], "label": image["labels"], "score": image["scores"]} for image in detections]
    numbers = range(len(truth))
    sides = gather("truth", truth, numbers), gather("found", found, numbers)
    return Detections(Images(list(numbers), None), tuple(f"class {k}" for k in range(classes)), *sides)


def voc(detections, ground_truth, classes):
    return voc_average_precision(together(detections, ground_truth, classes)).metrics


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_the_brute_force_twin(seed):
    detections, ground_truth = random_case(seed)
    measured = voc_average_precision(together(detections, ground_truth, 4))
    expected = voc_ap.voc_average_precision(detections, ground_truth, 4)
    assert measured.metrics == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["AP75"] < expected["AP50"] < 100
    by_class = {  # the last has no object
        f"class {label}": np.mean(
            [100 * voc_ap.class_average_precision(detections, ground_truth, label, t) for t in THRESHOLDS.tolist()]
        )
        for label in range(3)
    }
    assert measured.detail["box"]["by_class"] == pytest.approx(by_class, abs=1e-9)
    by_iou = measured.detail["box"]["by_iou"]
    assert (by_iou["50"], by_iou["75"]) == (measured.metrics["AP50"], measured.metrics["AP75"])
    assert list(by_iou) == IOUS and np.mean(list(by_iou.values())) == pytest.approx(expected["AP"], abs=1e-9)


def test_thresholds_and_recalls_are_the_floats_of_detectron2():
    assert THRESHOLDS.tolist() == [percent / 100 for percent in range(50, 100, 5)]
    assert RECALLS.tolist() == np.arange(0.0, 1.1, 0.1).tolist() and len(RECALLS) == 11


@pytest.mark.parametrize(("name", "side"), [("AP50", 20.0), ("AP75", 25.0)])
def test_a_match_needs_more_than_the_threshold(name, side):
    exactly, more = [10.0, 10.0, 30.0, side], [10.0, 10.0, 30.0, side + 0.1]  # of BOX, 1/2 or 3/4 and a little more
    truth = [image((BOX, 0, False))]
    assert voc([image((exactly, 0.9, 0))], truth, 1)[name] == 0
    assert voc([image((more, 0.9, 0))], truth, 1)[name] == 100


def test_a_difficult_object_is_neither_to_be_found_nor_held_against_who_finds_it():
    other = [50.0, 50.0, 70.0, 70.0]
    truth = [image((BOX, 0, False), (other, 0, True))]
    detections = [image((other, 0.9, 0), (other, 0.8, 0), (BOX, 0.7, 0))]
    assert voc(detections, truth, 1)["AP"] == 100
    plain = [image((BOX, 0, False), (other, 0, False))]
    assert voc(detections, plain, 1)["AP"] < 100


def test_the_second_detection_of_an_object_is_a_false_positive():
    other = [50.0, 50.0, 70.0, 70.0]
    truth = [image((BOX, 0, False), (other, 0, False))]
    twice = [image((BOX, 0.9, 0), (BOX, 0.8, 0), (other, 0.7, 0))]
    # recall 1/2 at precision 1 (6 points), recall 1 at precision 2/3 (5 points)
    assert voc(twice, truth, 1)["AP"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


@pytest.mark.parametrize("corner", [math.nan, math.inf, -math.inf])
def test_a_box_that_is_not_finite_finds_nothing(corner):
    """A detector whose training ran away gives such, and its test ends all the same."""
    truth, wild = [image((BOX, 0, False))], ([corner, *BOX[1:]], 0.9, 0)
    assert voc([image(wild)], truth, 1)["AP"] == 0
    assert voc([image(wild, (BOX, 0.5, 0))], truth, 1)["AP"] == pytest.approx(50)


def test_equal_scores_keep_their_order():
    away = [50.0, 50.0, 70.0, 70.0]
    truth = [image((BOX, 0, False))]
    first = [image((BOX, 0.5, 0), (away, 0.5, 0))]
    last = [image((away, 0.5, 0), (BOX, 0.5, 0))]
    assert voc(first, truth, 1)["AP"] == 100
    assert voc(last, truth, 1)["AP"] == pytest.approx(50)


def test_a_class_without_ground_truth_is_left_out():
    truth = [image((BOX, 0, False), (BOX, 2, True)), image()]
    detections = [image((BOX, 0.9, 0), (BOX, 0.9, 1), (BOX, 0.9, 2)), NOTHING]
    assert voc(detections, truth, 3)["AP"] == 100
    assert math.isnan(voc([NOTHING], [image()], 3)["AP"])


def test_an_object_that_nobody_finds_counts():
    assert voc([NOTHING], [image((BOX, 0, False))], 1) == {"AP": 0, "AP50": 0, "AP75": 0}


def test_the_metric_of_the_test_loop_reads_samples():
    sample = {
        "img_id": "000001",
        "ori_shape": (60, 90),
        "pred_instances": {"bboxes": torch.tensor([BOX]), "scores": torch.tensor([0.9]), "labels": torch.tensor([0])},
        "gt_instances": {"bboxes": torch.tensor([BOX]), "labels": torch.tensor([0])},
        "ignored_instances": {"bboxes": torch.tensor([BOX]) + 40, "labels": torch.tensor([0])},
    }
    metric = VOCAveragePrecision()
    metric.dataset_meta = {"classes": ("one",)}
    metric.process(None, [sample])
    assert metric.evaluate(1) == {"voc/AP": 100, "voc/AP50": 100, "voc/AP75": 100}
    assert metric.detections.images.ids == ["000001"] and metric.detections.images.sizes.tolist() == [[60, 90]]
    assert metric.detections.truth.ignored.tolist() == [False, True]
    assert metric.detections.truth.area.tolist() == [400, 400]
    assert metric.detail["box"]["by_class"] == {"one": 100}


def test_printed_detections_are_rounded_as_detectron2_writes_them():
    """Corners in pixels from 1 with one decimal, scores with three, as Python's formats round."""
    boxes = np.array([[0.04, 1.26, 10.25, 20.75], [99.951, 0, 120.05, 30]], np.float32)
    given = {"boxes": boxes, "scores": np.array([0.12345, 0.9996], np.float32), "labels": np.array([1, 2])}
    found = as_printed(together([given], [image()], 3)).found
    one = np.float32(1)
    rows = [[f"{x0 + one:.1f}", f"{y0 + one:.1f}", f"{x1:.1f}", f"{y1:.1f}"] for x0, y0, x1, y1 in boxes]
    assert found.box.tolist() == [[float(x0) - 1, float(y0) - 1, float(x1), float(y1)] for x0, y0, x1, y1 in rows]
    assert found.score.tolist() == [0.123, 1.0] and found.label.tolist() == [1, 2]


def test_the_metric_gives_the_printed_numbers_beside_the_unrounded():
    """A detection whose IoU is just above .5 and, rounded, just below; scores that differ by less than .0005."""
    ground_truth = {"bboxes": torch.tensor([[0.0, 0, 100, 100]]), "labels": torch.tensor([0])}
    sample = {
        "img_id": "000001",
        "ori_shape": (100, 100),
        "pred_instances": {
            "bboxes": torch.tensor([[0.0, 0, 100, 50.04]]),
            "scores": torch.tensor([0.9]),
            "labels": torch.tensor([0]),
        },
        "gt_instances": ground_truth,
        "ignored_instances": {"bboxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    }
    metric = VOCAveragePrecision(printed=True)
    metric.dataset_meta = {"classes": ("one",)}
    metric.process(None, [sample])
    found = metric.evaluate(1)
    assert found["voc/AP50"] == 100 and found["voc/printed_AP50"] == 0
    assert list(found) == [f"voc/{p}{name}" for p in ("", "printed_") for name in ("AP", "AP50", "AP75")]


@pytest.fixture
def three_red(coco_folder):
    """The test file with three red squares of 20 pixels in one image, and a crowd in another."""
    squares = [(10, 10, 30, 30), (40, 10, 60, 30), (70, 10, 90, 30)]
    crowd = coco_object(11, "green", (1, 1, 9, 63), 9, iscrowd=1, segmentation=TALL_RUNS)
    objects = [coco_object(10, "red", box, number) for number, box in enumerate(squares, 1)]
    file = annotation_file(coco_folder, "test")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": [*objects, crowd]}))
    return coco_folder


def coco(root, found, evaluator="pycocotools", classes=CLASSES):
    """Those of `detected`, in the test that the reader makes of a folder, measured."""
    split = COCOFolder.read(root, "test", True)
    split.survey.refuse()
    found = sorted(found, key=lambda d: d["image"])
    parts = [{name: [d[name]] for name in ("label", "box", "score", "mask")} for d in found]
    images, truth = COCOFolder.ground_truth(split, classes, True)
    side = gather("found", parts, [d["image"] for d in found])
    return coco_average_precision(Detections(images, classes, truth, side._replace(mask=side.mask or [])), evaluator)


IMAGES, TALL = [10, 11, 12, 13, 900, 901], 11  # in the order of their ids


def detected(box, mask=None, image_id=10, label="red", score=0.9):
    """A detection whose mask is the box, or another box."""
    x0, y0, x1, y1 = box
    pixels = np.zeros((96, 64) if image_id == TALL else (64, 96), np.uint8, order="F")
    left, top, right, bottom = mask or box
    pixels[top:bottom, left:right] = 1
    code = run_length.encode(pixels)["counts"]
    return dict(image=IMAGES.index(image_id), label=CLASSES.index(label), score=score, box=box, mask=code)


def test_one_of_three_objects_is_34_of_101_recalls_unrounded(three_red):
    measured = coco(three_red, [detected((10, 10, 30, 30))]).metrics
    assert list(measured) == ["box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75"]
    assert list(measured.values()) == pytest.approx([100 * 34 / 101] * 6, abs=1e-10)


def test_boxes_and_masks_are_measured_apart(three_red):
    half = detected((10, 10, 30, 30), mask=(10, 10, 30, 22))  # IoU .6: the thresholds .5, .55 and .6
    measured = coco(three_red, [half]).metrics
    share = 100 * 34 / 101
    assert measured["box_AP75"] == pytest.approx(share)
    assert measured["mask_AP50"] == pytest.approx(share) and measured["mask_AP75"] == 0
    assert measured["mask_AP"] == pytest.approx(0.3 * share)


def test_without_any_detection_all_is_zero(three_red):
    assert set(coco(three_red, []).metrics.values()) == {0.0}


def test_labels_follow_the_classes_and_not_the_order_of_the_file(three_red):
    assert list(CATEGORIES) != sorted(CATEGORIES)
    as_blue = detected((10, 10, 30, 30), label="blue")
    assert coco(three_red, [as_blue]).metrics["box_AP"] == 0
    named_otherwise = ("red", "green", "never seen")
    measured = coco(three_red, [as_blue], classes=named_otherwise).metrics
    assert measured["box_AP"] == pytest.approx(100 * 34 / 101)
    unknown = detected((10, 10, 30, 30), label="red")
    assert coco(three_red, [unknown], classes=named_otherwise).metrics["box_AP"] == 0


def test_a_crowd_is_not_held_against_who_finds_it(three_red):
    found = [detected((10 + 30 * k, 10, 30 + 30 * k, 30)) for k in range(3)]
    in_the_crowd = detected((2, 20, 8, 40), image_id=11, score=0.99)
    assert coco(three_red, [*found, in_the_crowd]).metrics["box_AP"] < 100
    in_the_crowd["label"] = CLASSES.index("green")
    assert coco(three_red, [*found, in_the_crowd]).metrics["box_AP"] == pytest.approx(100)


def scattered(file, seed):
    """Detections about objects that fill `file`: two sizes, crowds, equal scores, more than 100 in an image."""
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for entry in json.loads(file.read_text())["images"]:
        image_id, runs = entry["id"], COCO_RUNS if entry["width"] == 96 else TALL_RUNS
        for _ in range(rng.integers(0, 12)):
            name, crowd = CLASSES[rng.integers(3)], bool(rng.random() < 0.2)
            (x0, y0), side = rng.integers(0, 20, 2), int(rng.choice([6, 40]))
            box = [int(v) for v in (x0, y0, x0 + side, y0 + side)]
            changes = dict(iscrowd=1, segmentation=runs) if crowd else {}
            objects.append(coco_object(image_id, name, box, len(objects) + 1, **changes))
            for _ in range(rng.integers(0, 40)):
                near = [int(v) for v in np.clip(np.add(box, rng.integers(-3, 4, 4)), 0, 64)]
                label = name if rng.random() < 0.8 else CLASSES[rng.integers(3)]
                score = float(rng.integers(1, 8) / 8)
                found.append(detected(near, image_id=image_id, label=label, score=score))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": objects}))
    return found


def of_the_file(file, found, evaluator):
    """pycocotools' own evaluation of the file itself: its twelve numbers, and AP by IoU and by class."""
    index, evaluation_of = COCO_EVALUATORS[evaluator]
    numbers = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for kind, iou in (("box", "bbox"), ("mask", "segm")):
            read = index(str(file))
            own = [
                {
                    "image_id": IMAGES[d["image"]],
                    "category_id": CATEGORIES[CLASSES[d["label"]]],
                    "score": d["score"],
                    "bbox": [*d["box"][:2], *np.subtract(d["box"][2:], d["box"][:2]).tolist()],
                    "segmentation": {"size": [96, 64] if IMAGES[d["image"]] == TALL else [64, 96], "counts": d["mask"]},
                }
                for d in found
            ]
            for entry in own:
                entry.pop("bbox" if kind == "mask" else "segmentation")
            evaluation = evaluation_of(read, read.loadRes(own), iou)
            evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
            precision = evaluation.eval["precision"][..., 0, 2]
            numbers[kind] = {
                "all": evaluation.stats[:12],
                "by_iou": [np.mean(precision[t][precision[t] > -1]) for t in range(10)],
                "by_class": [np.mean(precision[:, :, k][precision[:, :, k] > -1]) for k in range(3)],
            }
    return numbers


@pytest.mark.parametrize("seed", range(5))
def test_what_was_read_gives_the_numbers_of_the_file_in_both_evaluators(coco_folder, seed):
    file = annotation_file(coco_folder, "test")
    found = scattered(file, seed)
    assert max(np.bincount([d["image"] for d in found])) > 100
    measured, fast = (coco(coco_folder, found, evaluator) for evaluator in COCO_EVALUATORS)
    for (metrics, detail), evaluator in ((measured, "pycocotools"), (fast, "faster-coco-eval")):
        for kind, expected in of_the_file(file, found, evaluator).items():
            sizes = "small", "medium"  # none is large: 96 x 96 pixels and more
            parts, (ap, *others) = detail[kind], (100 * expected["all"]).tolist()
            assert [metrics[f"{kind}_{name}"] for name in ("AP", "AP50", "AP75")] == [ap, *others[:2]]
            assert [*parts["by_size"].items()] == list(zip(sizes, others[2:4], strict=True))
            assert [*parts["recall"].items()] == list(zip(("1", "10", "100", *sizes), others[5:10], strict=True))
            assert list(parts["by_iou"].values()) == [100 * value for value in expected["by_iou"]]
            assert parts["by_class"] == dict(zip(CLASSES, (100 * v for v in expected["by_class"]), strict=True))
    assert fast.metrics == pytest.approx(measured.metrics, abs=1e-9)
    assert 0 < measured.metrics["mask_AP75"] < measured.metrics["mask_AP50"] < 100
    assert coco(coco_folder, [], "faster-coco-eval").metrics == dict.fromkeys(measured.metrics, 0)


def _from_0(content):
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = number


def _texts(content):
    for entry in content["annotations"]:
        entry |= {
            "id": f"a{entry['id']}",
            "bbox": [str(side) for side in entry["bbox"]],
            "iscrowd": str(entry["iscrowd"]),
        }


def _named(content):
    for entry in content["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"image {entry['image_id']}"


def _text_of_a_number(content):
    for entry in content["annotations"]:
        entry["image_id"] = str(entry["image_id"])


def _without(*names):
    def change(content):
        for entry in content["annotations"]:
            for name in names:
                entry.pop(name, None)

    return change


ODD_BUT_CLEAR = {
    "ids from 0": _from_0,
    "ids and numbers as text": _texts,
    "images of names": _named,
    "image_id as text": _text_of_a_number,
    "no ids": _without("id"),
    "no areas": _without("area"),
    "images in another order": lambda content: content["images"].reverse(),
    "areas of nothing": lambda content: [entry.update(area=None) for entry in content["annotations"]],
}


@pytest.mark.parametrize("evaluator", COCO_EVALUATORS)
@pytest.mark.parametrize("case", ODD_BUT_CLEAR)
def test_a_perfect_detector_has_100_whatever_the_ids_are(coco_folder, case, evaluator):
    file = annotation_file(coco_folder, "test")
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        assert entry["id"] > 0
    found = [
        detected([round(side) for side in (x, y, x + w, y + h)], image_id=entry["image_id"], label=name)
        for entry in content["annotations"]
        if not entry["iscrowd"]
        for x, y, w, h in [entry["bbox"]]
        for name, number in CATEGORIES.items()
        if number == entry["category_id"]
    ]
    ODD_BUT_CLEAR[case](content)
    file.write_text(json.dumps(content))
    assert set(coco(coco_folder, found, evaluator).metrics.values()) == {100}


def test_a_detector_without_masks_is_measured_by_its_boxes(three_red):
    found = {"bboxes": torch.tensor([[10.0, 10, 30, 30]]), "scores": torch.tensor([0.9])}
    found["labels"] = torch.tensor([CLASSES.index("red")])
    metric = COCOAveragePrecision(three_red, kinds=["box"])
    metric.dataset_meta = {"classes": CLASSES}
    metric.process(None, [{"img_id": 1, "pred_instances": found}])
    measured = metric.evaluate(1)
    assert measured == dict.fromkeys(("coco/box_AP", "coco/box_AP50", "coco/box_AP75"), pytest.approx(100 * 34 / 101))
    assert metric.detections.truth.mask is None is metric.detections.found.mask
    assert metric.detections.images.ids[:2] == ["000000000010.jpg", "000000000011.jpg"]


@pytest.mark.parametrize("evaluator", COCO_EVALUATORS)
def test_cocos_metric_of_the_test_loop_reads_samples_and_is_silent(three_red, capsys, evaluator):
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 10:30, 10:30], masks[1, 10:30, 40:60] = True, True
    boxes = torch.tensor([[10.0, 10, 30, 30], [40, 10, 60, 30]])
    labels = torch.full((2,), CLASSES.index("red"))
    found = {"bboxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": labels, "masks": masks}
    metric = COCOAveragePrecision(three_red, evaluator)
    metric.dataset_meta = {"classes": CLASSES}
    metric.process(None, [{"img_id": 1, "pred_instances": found}])
    metric.process(None, [{"img_id": 2, "pred_instances": {key: value[:0] for key, value in found.items()}}])
    measured = metric.evaluate(2)
    assert measured == {
        f"coco/{kind}_{name}": pytest.approx(100 * 67 / 101)
        for kind in ("box", "mask")
        for name in ("AP", "AP50", "AP75")
    }
    assert capsys.readouterr() == ("", "")
