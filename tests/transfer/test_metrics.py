"""The metric against its twin, and what it promises one sentence at a time."""

import math

import numpy as np
import pytest
import torch

from resim_bench.errors import UserError
from tests.references import voc_ap
from transfer.metrics import RECALLS, THRESHOLDS, VOCAveragePrecision, voc_average_precision

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


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_the_brute_force_twin(seed):
    detections, ground_truth = random_case(seed)
    measured = voc_average_precision(detections, ground_truth, 4)
    expected = voc_ap.voc_average_precision(detections, ground_truth, 4)
    assert measured == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["AP75"] < expected["AP50"] < 100


def test_thresholds_and_recalls_are_the_floats_of_detectron2():
    assert THRESHOLDS.tolist() == [percent / 100 for percent in range(50, 100, 5)]
    assert RECALLS.tolist() == np.arange(0.0, 1.1, 0.1).tolist() and len(RECALLS) == 11


def test_tensors_do_as_well_as_arrays():
    detections, ground_truth = random_case(3)
    tensors = [
        [{k: torch.as_tensor(v) for k, v in entry.items()} for entry in side] for side in (detections, ground_truth)
    ]
    assert voc_average_precision(*tensors, 4) == voc_average_precision(detections, ground_truth, 4)


@pytest.mark.parametrize(("name", "side"), [("AP50", 20.0), ("AP75", 25.0)])
def test_a_match_needs_more_than_the_threshold(name, side):
    exactly, more = [10.0, 10.0, 30.0, side], [10.0, 10.0, 30.0, side + 0.1]  # of BOX, 1/2 or 3/4 and a little more
    truth = [image((BOX, 0, False))]
    assert voc_average_precision([image((exactly, 0.9, 0))], truth, 1)[name] == 0
    assert voc_average_precision([image((more, 0.9, 0))], truth, 1)[name] == 100


def test_a_difficult_object_is_neither_to_be_found_nor_held_against_who_finds_it():
    other = [50.0, 50.0, 70.0, 70.0]
    truth = [image((BOX, 0, False), (other, 0, True))]
    detections = [image((other, 0.9, 0), (other, 0.8, 0), (BOX, 0.7, 0))]
    assert voc_average_precision(detections, truth, 1)["AP"] == 100
    plain = [image((BOX, 0, False), (other, 0, False))]
    assert voc_average_precision(detections, plain, 1)["AP"] < 100


def test_the_second_detection_of_an_object_is_a_false_positive():
    other = [50.0, 50.0, 70.0, 70.0]
    truth = [image((BOX, 0, False), (other, 0, False))]
    twice = [image((BOX, 0.9, 0), (BOX, 0.8, 0), (other, 0.7, 0))]
    # recall 1/2 at precision 1 (6 points), recall 1 at precision 2/3 (5 points)
    assert voc_average_precision(twice, truth, 1)["AP"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_equal_scores_keep_their_order():
    away = [50.0, 50.0, 70.0, 70.0]
    truth = [image((BOX, 0, False))]
    first = [image((BOX, 0.5, 0), (away, 0.5, 0))]
    last = [image((away, 0.5, 0), (BOX, 0.5, 0))]
    assert voc_average_precision(first, truth, 1)["AP"] == 100
    assert voc_average_precision(last, truth, 1)["AP"] == pytest.approx(50)


def test_a_class_without_ground_truth_is_left_out():
    truth = [image((BOX, 0, False), (BOX, 2, True)), image()]
    detections = [image((BOX, 0.9, 0), (BOX, 0.9, 1), (BOX, 0.9, 2)), NOTHING]
    assert voc_average_precision(detections, truth, 3)["AP"] == 100
    assert math.isnan(voc_average_precision([NOTHING], [image()], 3)["AP"])


def test_an_object_that_nobody_finds_counts():
    assert voc_average_precision([NOTHING], [image((BOX, 0, False))], 1) == {"AP": 0, "AP50": 0, "AP75": 0}


def test_labels_and_lengths_are_checked():
    with pytest.raises(UserError, match="labels are 0 to 0"):
        voc_average_precision([image((BOX, 0.9, 1))], [image((BOX, 0, False))], 1)
    with pytest.raises(UserError, match="2 images, but 1"):
        voc_average_precision([NOTHING, NOTHING], [image((BOX, 0, False))], 1)


def test_the_metric_of_the_test_loop_reads_samples():
    sample = {
        "pred_instances": {"bboxes": torch.tensor([BOX]), "scores": torch.tensor([0.9]), "labels": torch.tensor([0])},
        "gt_instances": {"bboxes": torch.tensor([BOX]), "labels": torch.tensor([0])},
        "ignored_instances": {"bboxes": torch.tensor([BOX]) + 40, "labels": torch.tensor([0])},
    }
    metric = VOCAveragePrecision()
    metric.dataset_meta = {"classes": ("one",)}
    metric.process(None, [sample])
    assert metric.evaluate(1) == {"voc/AP": 100, "voc/AP50": 100, "voc/AP75": 100}
