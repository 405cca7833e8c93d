"""VOC's average precision against MMDetection's: a row of `resim-bench bench ops`."""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.evaluation.functional import eval_map
from torchvision.ops import box_iou

from resim_bench.machine.timing import Comparison, compare, seconds
from transfer.metrics import THRESHOLDS, voc_average_precision

IMAGES, CLASSES, DETECTIONS = 4952, 20, 100  # VOC2007's test, and as many detections per image as Detectron2 keeps
FRAME = 500, 375


def rows(pairs: int = 1) -> list[Comparison]:
    """VOC AP over a set of the size of VOC2007's test, ours and MMDetection's.

    There is no round to warm up: neither has anything to load, and MMDetection's takes half a minute on two cores.

    Raises:
        RuntimeError: the two differ by more than 1e-6 as a fraction.
    """
    detections, ground_truth = voc_like(IMAGES)
    theirs = for_mmdetection(detections, ground_truth)
    measured = {}

    def ours():
        measured["ours"] = voc_average_precision(detections, ground_truth, CLASSES)

    def reference():
        measured["reference"] = mmdetection_average_precision(*theirs)

    rounds = [(seconds(ours), seconds(reference)) for _ in range(pairs)]
    check(**measured)
    return [compare(f"VOC AP, {IMAGES:,} images, against eval_map", rounds, at_least=10)]


def check(ours: dict[str, float], reference: dict[str, float]) -> None:
    """Refuse results in per cent that differ by more than 1e-6 as a fraction; MMDetection counts in float32.

    Raises:
        RuntimeError: names the first that does.
    """
    for name, expected in reference.items():
        if not abs(ours[name] - expected) <= 100 * 1e-6:
            raise RuntimeError(f"{name} is {ours[name]} by transfer.metrics and {expected} by MMDetection")


def mmdetection_average_precision(detections: list[list[np.ndarray]], annotations: list[dict]) -> dict[str, float]:
    """AP, AP50 and AP75 in per cent, by `eval_map` as MMDetection's `VOCMetric` calls it.

    That is once a threshold, each time over four processes. Takes what `for_mmdetection` makes.
    """
    by_threshold = [
        100
        * eval_map(
            detections,
            annotations,
            iou_thr=threshold,
            dataset="voc",
            logger="silent",
            eval_mode="11points",
            use_legacy_coordinate=True,
        )[0]
        for threshold in THRESHOLDS.tolist()
    ]
    return {"AP": sum(by_threshold) / len(by_threshold), "AP50": by_threshold[0], "AP75": by_threshold[5]}


def for_mmdetection(
    detections: Sequence[dict], ground_truth: Sequence[dict]
) -> tuple[list[list[np.ndarray]], list[dict]]:
    """The same images as `VOCMetric` keeps them: detections (n, 5) by class, the last pixel inside the box (x1 - 1)."""
    inside = np.array([0, 0, 1, 1], np.float32)

    def by_class(found):
        boxes = np.column_stack([found["boxes"] - inside, found["scores"]])
        return [boxes[found["labels"] == label] for label in range(CLASSES)]

    def annotation(truth):
        boxes, labels, ignore = truth["boxes"] - inside, truth["labels"], truth["difficult"]
        return {
            "bboxes": boxes[~ignore],
            "labels": labels[~ignore],
            "bboxes_ignore": boxes[ignore],
            "labels_ignore": labels[ignore],
        }

    return [by_class(found) for found in detections], [annotation(truth) for truth in ground_truth]


def voc_like(images: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Detections and ground truth of `images` as `voc_average_precision` takes them, boxes and scores in float32.

    As in VOC2007's test an image has three objects on average and a fifth of all are difficult. Of its 100 detections
    a third lie about an object, most of them with its class, and score by how near. So that both metrics see the same
    numbers, coordinates are multiples of 1/16 pixel, no two scores are equal, and a detection with an IoU within 1e-5
    of a threshold is left out.
    """
    rng = np.random.default_rng(seed)

    def boxes(count):
        side = rng.uniform(0.1, 0.7, (count, 2)) * FRAME
        corner = rng.uniform(0, 1, (count, 2)) * (FRAME - side)
        return np.concatenate([corner, corner + side], axis=1)

    objects = 1 + rng.poisson(2, images)
    image, total = np.repeat(np.arange(images), objects), objects.sum()
    gt_box = _sixteenths(boxes(total))
    usual = rng.integers(0, CLASSES, images)  # objects of one class come together
    gt_label = np.where(rng.random(total) < 0.5, usual[image], rng.integers(0, CLASSES, total))
    gt_difficult = rng.random(total) < 0.2

    count = images * DETECTIONS
    near, spread = rng.random(count) < 1 / 3, rng.uniform(0, 0.3, count)
    target = np.repeat(np.cumsum(objects) - objects, DETECTIONS) + rng.integers(0, np.repeat(objects, DETECTIONS))
    side = gt_box[target, 2:] - gt_box[target, :2]
    jitter = rng.uniform(-1, 1, (count, 4)) * spread[:, None] * np.tile(side, 2)
    box = _sixteenths(np.where(near[:, None], gt_box[target] + jitter, boxes(count)))
    label = np.where(near & (rng.random(count) < 0.9), gt_label[target], rng.integers(0, CLASSES, count))
    rank = np.argsort(np.argsort(rng.normal(0, 0.3, count) + near * (1 - 3 * spread)))
    score = ((rank + 1) / count).astype(np.float32)

    ground_truth = [
        {"boxes": gt_box[part], "labels": gt_label[part], "difficult": gt_difficult[part]}
        for part in np.split(np.arange(total), np.cumsum(objects)[:-1])
    ]
    detections = []
    for start, truth in zip(range(0, count, DETECTIONS), ground_truth, strict=True):
        every = slice(start, start + DETECTIONS)
        keep = start + np.flatnonzero(_is_decided(box[every], truth["boxes"]))
        detections.append({"boxes": box[keep], "scores": score[keep], "labels": label[keep]})
    return detections, ground_truth


def _sixteenths(boxes):
    return (np.round(boxes * 16) / 16).astype(np.float32)


def _is_decided(boxes, objects):
    """Whether rounding cannot change what a box (n, 4) matches."""
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(objects)).numpy()
    return (np.abs(iou[..., None] - THRESHOLDS) > 1e-5).all(axis=(1, 2))
