"""Average precision as the paper's tables mean it.

VOC: 11 points of VOC07, mean over ten IoU thresholds. The definition is Detectron2's
(`detectron2/evaluation/pascal_voc_evaluation.py`): a detection is compared with the ground truth of its image and class
that it overlaps most, difficult objects included. Detectron2 writes scores with three decimals and corners with one
before it compares them; published numbers are of that kind, and `as_printed` does the same.

COCO: pycocotools' own evaluation of boxes and masks, the one of records; faster-coco-eval's is equal and three to
seven times as fast, for validation.
"""

import contextlib
import copy
import io
from collections.abc import Sequence

import cv2
import faster_coco_eval
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS
from pycocotools import mask as run_length
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resim_bench.errors import UserError
from resim_bench.record import PRINTED

THRESHOLDS = np.arange(50, 100, 5) / 100
RECALLS = np.arange(0.0, 1.1, 0.1)
COCO_EVALUATORS = {
    "pycocotools": (COCO, COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
COCO_KINDS = {"box": ("bbox", "bbox"), "mask": ("segm", "segmentation")}  # pycocotools' name, a detection's field
_EPS = np.finfo(np.float64).eps


def voc_average_precision(
    detections: Sequence[dict], ground_truth: Sequence[dict], num_classes: int
) -> dict[str, float]:
    """AP (mean over IoU .50:.05:.95), AP50 and AP75 in per cent, unrounded, in float64.

    A detection belongs to the object of its image and class with which its IoU is largest (the first of equals). It
    matches if that IoU is greater than the threshold. The best-scored match of an object is a true positive, every
    further one a false positive; a match of a difficult object counts as neither. Detections of equal score keep
    their order: that of the images, and within an image that of the input.

    Args:
        detections: one dict per image: `boxes` (n, 4), `scores` (n,), `labels` (n,).
        ground_truth: one dict per image, in the same order: `boxes` (m, 4), `labels` (m,), `difficult` (m,) bool.
            Boxes are continuous (x0, y0, x1, y1); arrays or tensors.
        num_classes: labels are 0 … num_classes - 1. A class without an object that is not difficult is left out of
            the mean; when that leaves no class, the results are NaN.

    Raises:
        UserError: the two sequences differ in length, or a label is out of range.
    """
    if len(detections) != len(ground_truth):
        raise UserError(f"there are detections of {len(detections)} images, but {len(ground_truth)} have ground truth")
    image, label, box, score = _gather(detections, "scores")
    gt_image, gt_label, gt_box, gt_difficult = _gather(ground_truth, "difficult")
    for labels in (label, gt_label):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise UserError(f"labels are 0 to {num_classes - 1} with {num_classes} classes, but one is {labels.max()}")

    order = np.lexsort((-score, label))  # stable
    image, label, box = image[order], label[order], box[order]
    iou, target = _best_overlap(image * num_classes + label, box, gt_image * num_classes + gt_label, gt_box)
    hit, ignored = _judge(iou, target, gt_difficult.astype(bool))

    objects = np.bincount(gt_label[~gt_difficult.astype(bool)], minlength=num_classes)
    ends = np.searchsorted(label, np.arange(num_classes + 1))
    precisions = [
        [_eleven_points(*judged, count) for judged in zip(hit[start:end].T, ignored[start:end].T, strict=True)]
        for start, end, count in zip(ends[:-1], ends[1:], objects, strict=True)
        if count
    ]
    if not precisions:
        return dict.fromkeys(("AP", "AP50", "AP75"), float("nan"))
    by_threshold = 100 * np.mean(precisions, axis=0)
    return {
        "AP": float(by_threshold.mean()),
        "AP50": float(by_threshold[0]),
        "AP75": float(by_threshold[5]),
    }


def _gather(images: Sequence[dict], last: str) -> tuple[np.ndarray, ...]:
    """All images in one: image number (n,), `labels` (n,), `boxes` (n, 4) float64, and the field `last` (n,)."""

    def field(name, shape, dtype):
        parts = [_array(entry[name]).reshape(shape) for entry in images]
        return np.concatenate([np.empty((0, *shape[1:]), dtype), *parts]).astype(dtype)

    counts = [len(entry["labels"]) for entry in images]
    return (
        np.repeat(np.arange(len(images)), counts),
        field("labels", (-1,), np.int64),
        field("boxes", (-1, 4), np.float64),
        field(last, (-1,), np.float64),
    )


def _array(value) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _best_overlap(key, box, gt_key, gt_box) -> tuple[np.ndarray, np.ndarray]:
    """Largest IoU (n,) of each detection with an object of the same key, and that object's index (n,).

    A key stands for image and class. Without such an object the IoU is 0 and the index 0.
    """
    gt_order = np.argsort(gt_key, kind="stable")
    per_key = np.bincount(gt_key, minlength=key.max(initial=0) + 1)
    first, count = (np.cumsum(per_key) - per_key)[key], per_key[key]
    best, target = np.zeros(len(key)), np.zeros(len(key), np.int64)
    some = np.flatnonzero(count)
    if not some.size:
        return best, target
    # Every pair of a detection and an object of its key, one after another.
    first, count = first[some], count[some]
    begin = np.cumsum(count) - count
    pair_gt = gt_order[np.arange(count.sum()) + np.repeat(first - begin, count)]
    iou = _iou(box[np.repeat(some, count)], gt_box[pair_gt])
    best[some] = np.maximum.reduceat(iou, begin)
    is_best = np.flatnonzero(iou == np.repeat(best[some], count))
    target[some] = pair_gt[is_best[np.searchsorted(is_best, begin)]]
    return best, target


def _iou(a, b) -> np.ndarray:
    """IoU (n,) of boxes (n, 4) with boxes (n, 4); two boxes without area have 0."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    intersection = np.maximum(sides, 0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - intersection
    return intersection / np.maximum(union, _EPS)


def _judge(iou, target, difficult) -> tuple[np.ndarray, np.ndarray]:
    """Whether each detection is a true positive, and whether it is ignored: (n, T) bool each, T thresholds.

    Detections come by falling score, so that the first match of an object is its best-scored one.
    """
    hit = np.zeros((len(iou), len(THRESHOLDS)), bool)
    ignored = np.zeros_like(hit)
    close = np.flatnonzero(iou > THRESHOLDS[0])
    close = close[np.argsort(target[close], kind="stable")]
    matched = iou[close, None] > THRESHOLDS
    owner = target[close]
    # In the run of detections of one object, the first match is the one before which the count of matches is 0.
    before = np.cumsum(matched, axis=0) - matched
    start = np.searchsorted(owner, owner, side="left")
    hit[close] = matched & (before == before[start]) & ~difficult[owner, None]
    ignored[close] = matched & difficult[owner, None]
    return hit, ignored


def _eleven_points(hit, ignored, objects: int) -> float:
    """VOC07 average precision of one class at one threshold, from `hit` and `ignored` (n,) by falling score."""
    found = np.flatnonzero(hit)
    precision = np.arange(1, len(found) + 1) / (found + 1 - np.cumsum(ignored)[found])
    # The best precision from each true positive on; a last one for a recall that is never reached.
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    needed = np.searchsorted(np.arange(objects + 1) / objects, RECALLS)
    return best[np.clip(needed - 1, 0, len(found))].mean()


def as_printed(detections: Sequence[dict]) -> list[dict]:
    """The detections as Detectron2 writes them: scores to three decimals, corners to one, in pixels from 1.

    Of equal scores, those of earlier images come first, as everywhere here; Detectron2 leaves that to numpy's sort.

    Args:
        detections: as `voc_average_precision` has them.
    """
    from_one = np.array([1, 1, 0, 0], np.float32)

    def rounded(values, decimals):
        return np.char.mod(f"%.{decimals}f", values).astype(np.float64)

    return [
        image
        | {
            "boxes": rounded(_array(image["boxes"]).reshape(-1, 4) + from_one, 1) - from_one,
            "scores": rounded(_array(image["scores"]), 3),
        }
        for image in detections
    ]


@METRICS.register_module()
class VOCAveragePrecision(BaseMetric):
    """`voc_average_precision` of a test loop: `voc/AP`, `voc/AP50` and `voc/AP75`, unrounded, in per cent.

    Expects a data set with `metainfo["classes"]` and samples whose `gt_instances` are the objects to find and whose
    `ignored_instances` are the difficult ones.

    Args:
        printed: also give `voc/printed_AP` … `voc/printed_AP75`, of the detections `as_printed`.
    """

    default_prefix = "voc"

    def __init__(self, printed=False, **kwargs):
        super().__init__(**kwargs)
        self.printed = printed

    def process(self, data_batch, data_samples):
        """Keep the predictions and the ground truth of a batch."""
        for sample in data_samples:
            found, objects, difficult = (
                {name: value.cpu().numpy() for name, value in sample[key].items()}
                for key in ("pred_instances", "gt_instances", "ignored_instances")
            )
            detections = {"boxes": found["bboxes"], "scores": found["scores"], "labels": found["labels"]}
            ground_truth = {
                "boxes": np.concatenate([objects["bboxes"], difficult["bboxes"]]),
                "labels": np.concatenate([objects["labels"], difficult["labels"]]),
                "difficult": np.repeat([False, True], [len(objects["labels"]), len(difficult["labels"])]),
            }
            self.results.append((detections, ground_truth))

    def compute_metrics(self, results):
        """The three numbers over all images, or six."""
        detections, ground_truth = zip(*results, strict=True)
        classes = len(self.dataset_meta["classes"])
        metrics = voc_average_precision(detections, ground_truth, classes)
        if self.printed:
            printed = voc_average_precision(as_printed(detections), ground_truth, classes)
            metrics |= {PRINTED + name: value for name, value in printed.items()}
        return metrics


def coco_average_precision(
    detections: Sequence[dict],
    ground_truth: dict,
    classes: Sequence[str],
    evaluator: str = "pycocotools",
    kinds: Sequence[str] = ("box", "mask"),
) -> dict[str, float]:
    """`box_AP`, `box_AP50`, `box_AP75`, `mask_AP`, `mask_AP50`, `mask_AP75` in per cent, unrounded.

    Args:
        detections: one dict each: `image_id`, `label`, `score`, `bbox` (x, y, width, height) and, where masks are
            asked for, `segmentation` (a run-length code); without any detection, all numbers are 0.
        ground_truth: of the images, as `coco.ground_truth` has it, with one object at least that is no crowd.
        classes: names by label; one that the ground truth does not have is not evaluated.
        evaluator: whose evaluation, a key of `COCO_EVALUATORS`.
        kinds: of `COCO_KINDS`.
    """
    index, evaluation_of = COCO_EVALUATORS[evaluator]
    metrics = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth = index()
        truth.dataset = copy.deepcopy(ground_truth)  # pycocotools writes into it
        truth.createIndex()
        numbers = {category["name"]: number for number, category in truth.cats.items()}
        known = [
            d | {"category_id": numbers[classes[d["label"]]]} for d in detections if classes[d["label"]] in numbers
        ]
        for name in kinds:
            iou, place = COCO_KINDS[name]
            found = [{key: d[key] for key in ("image_id", "category_id", "score", place)} for d in known]
            evaluation = evaluation_of(truth, truth.loadRes(found) if found else index(), iou)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            for suffix, value in zip(("AP", "AP50", "AP75"), evaluation.stats[:3], strict=True):
                metrics[f"{name}_{suffix}"] = 100 * float(value)
    return metrics


@METRICS.register_module()
class COCOAveragePrecision(BaseMetric):
    """`coco_average_precision` of a test loop over val2017: `coco/box_AP` … `coco/mask_AP75`.

    Args:
        data_root: the data set's folder, whose test says what is to be found: what the data set has read.
        folder: the class of the data set, which has a `ground_truth`.
        evaluator, kinds: as `coco_average_precision` has them.
    """

    default_prefix = "coco"

    def __init__(self, data_root, evaluator="pycocotools", kinds=("box", "mask"), folder="COCOFolder", **kwargs):
        super().__init__(**kwargs)
        self.data_root, self.evaluator, self.kinds, self.folder = data_root, evaluator, kinds, folder

    def process(self, data_batch, data_samples):
        """Keep the detections of a batch, image by image, with masks as run-length codes."""
        for sample in data_samples:
            found = {name: value.cpu().numpy() for name, value in sample["pred_instances"].items()}
            corner, opposite = np.split(found["bboxes"].astype(float), 2, axis=1)
            columns = {
                "label": found["labels"].tolist(),
                "score": found["scores"].tolist(),
                "bbox": np.concatenate([corner, opposite - corner], axis=1).tolist(),
            }
            if "mask" in self.kinds:
                masks = found["masks"].view(np.uint8)
                # Run lengths go down the columns, and OpenCV turns a mask six times as fast as numpy.
                columns["segmentation"] = [run_length.encode(cv2.transpose(mask).T) for mask in masks]
            detections = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            self.results.append([{"image_id": sample["img_id"]} | detection for detection in detections])

    def compute_metrics(self, results):
        """The numbers over all images, three per kind."""
        detections = [detection for image in results for detection in image]
        folder = DATASETS.get(self.folder)
        test = folder.read_once(folder.find(self.data_root), "test", "mask" in self.kinds)
        test.survey.refuse()
        classes = self.dataset_meta["classes"]
        return coco_average_precision(detections, folder.ground_truth(test), classes, self.evaluator, self.kinds)
