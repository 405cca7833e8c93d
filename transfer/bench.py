"""VOC's average precision against MMDetection's (`resim-bench bench ops`), and over ever more detections (`growth`)."""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.evaluation.functional import eval_map
from torchvision.ops import box_iou

from resim_bench.machine.timing import Comparison, Growth, compare, grow, seconds
from transfer.detections import Detections, Found, Images, Truth
from transfer.metrics import THRESHOLDS, voc_average_precision

IMAGES, CLASSES, DETECTIONS = 4952, 20, 100  # VOC2007's test, and as many detections per image as Detectron2 keeps
FRAME = 500, 375


def rows(pairs: int = 1) -> list[Comparison]:
    """VOC AP over a set of the size of VOC2007's test, ours and MMDetection's.

    There is no round to warm up: neither has anything to load, and MMDetection's takes half a minute on two cores.

    Raises:
        RuntimeError: the two differ by more than 1e-6 as a fraction.
    """
    detections = voc_like(IMAGES)
    theirs = for_mmdetection(detections)
    measured = {}

    def ours():
        measured["ours"] = voc_average_precision(detections).metrics

    def reference():
        measured["reference"] = mmdetection_average_precision(*theirs)

    rounds = [(seconds(ours), seconds(reference)) for _ in range(pairs)]
    check(**measured)
    return [compare(f"VOC AP, {IMAGES:,} images, against eval_map", rounds, at_least=10)]


def growth(sizes: Sequence[int] = (10_000, 100_000, 1_000_000)) -> Growth:
    """VOC AP over ever more detections, which it sorts."""

    def make(count):
        detections = voc_like(count // DETECTIONS)
        return lambda: voc_average_precision(detections)

    return grow("VOC AP", make, sizes, "detections", expected=1)


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


def for_mmdetection(detections: Detections) -> tuple[list[list[np.ndarray]], list[dict]]:
    """The same images as `VOCMetric` keeps them: detections (n, 5) by class, the last pixel inside the box (x1 - 1)."""
    inside = np.array([0, 0, 1, 1], np.float32)
    found, truth, images = detections.found, detections.truth, len(detections.images.ids)
    boxes, objects = np.column_stack([found.box - inside, found.score]), truth.box.astype(np.float32) - inside

    def of_images(side):
        return np.split(np.arange(len(side.image)), np.searchsorted(side.image, np.arange(1, images)))

    def by_class(k):
        return [boxes[k[found.label[k] == label]] for label in range(CLASSES)]

    def annotation(k):
        kept, ignored = k[~truth.ignored[k]], k[truth.ignored[k]]
        return {
            "bboxes": objects[kept],
            "labels": truth.label[kept],
            "bboxes_ignore": objects[ignored],
            "labels_ignore": truth.label[ignored],
        }

    return [by_class(k) for k in of_images(found)], [annotation(k) for k in of_images(truth)]


def voc_like(images: int, seed: int = 0) -> Detections:
    """Detections of so many images; all boxes are whole in float32.

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

    kept = [
        start + np.flatnonzero(_is_decided(box[start : start + DETECTIONS], of_image))
        for start, of_image in zip(range(0, count, DETECTIONS), np.split(gt_box, np.cumsum(objects)[:-1]), strict=True)
    ]
    found = np.concatenate(kept)
    area = (gt_box[:, 2:] - gt_box[:, :2]).astype(np.float64).prod(1)
    return Detections(
        Images(list(range(images)), np.tile(np.array(FRAME[::-1]), (images, 1))),
        tuple(f"class {label}" for label in range(CLASSES)),
        Truth(image, gt_label, gt_box, gt_difficult, area),
        Found(found // DETECTIONS, label[found], box[found], score[found]),
    )


def _sixteenths(boxes):
    return (np.round(boxes * 16) / 16).astype(np.float32)


def _is_decided(boxes, objects):
    """Whether rounding cannot change what a box (n, 4) matches."""
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(objects)).numpy()
    return (np.abs(iou[..., None] - THRESHOLDS) > 1e-5).all(axis=(1, 2))
