"""Average precision as the paper's tables mean it.

VOC: 11 points of VOC07, mean over ten IoU thresholds. The definition is Detectron2's
(`detectron2/evaluation/pascal_voc_evaluation.py`): a detection is compared with the ground truth of its image and class
that it overlaps most, difficult objects included. Detectron2 writes scores with three decimals and corners with one
before it compares them; published numbers are of that kind, and `as_printed` does the same.

COCO: pycocotools' own evaluation of boxes and masks, the one of records; faster-coco-eval's is equal and three to
seven times as fast, for validation.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import faster_coco_eval
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resim_bench.errors import UserError
from resim_bench.record import PRINTED
from transfer import errors
from transfer.curves import interpolated
from transfer.detections import Detections, Found, Images, Truth, gather
from transfer.masks import as_coco, encode

THRESHOLDS = np.arange(50, 100, 5) / 100
IOUS = [f"{percent}" for percent in range(50, 100, 5)]  # as names
RECALLS = np.arange(0.0, 1.1, 0.1)
COCO_EVALUATORS = {
    "pycocotools": (COCO, COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
COCO_KINDS = {"box": ("bbox", "bbox"), "mask": ("segm", "segmentation")}  # pycocotools' name, an annotation's field
COCO_SIZES = "small", "medium", "large"  # below 32² square pixels, below 96², above
COCO_RECALLS = "1", "10", "100"  # detections an image
_EPS = np.finfo(np.float64).eps


class Measured(NamedTuple):
    """What a metric says, in per cent, unrounded.

    Attributes:
        metrics: the headline numbers, by name.
        detail: of each kind (`box`, `mask`) the same AP `by_iou` ("50" … "95"), `by_class`, and COCO's `by_size` and
            `recall` (AR by detections an image, and by size). What no object counts for is left out. And `errors`, of
            each kind what `errors.analysis` says, by IoU.
    """

    metrics: dict[str, float]
    detail: dict[str, dict[str, dict]]


def measure(detections: Detections) -> Measured:
    """Measure by the metric that the detections name: what a test does, and `resim-bench score`."""
    function, names = _MEASURES[detections.metric["type"]]
    measured = function(detections, **{name: detections.metric[name] for name in names if name in detections.metric})
    return measured._replace(detail=measured.detail | {"errors": errors.analysis(detections)})


def voc_average_precision(detections: Detections, printed: bool = False) -> Measured:
    """AP (mean over IoU .50:.05:.95), AP50 and AP75 of VOC07, in float64.

    A detection belongs to the object of its image and class with which its IoU is largest (the first of equals). It
    matches if that IoU is greater than the threshold. The best-scored match of an object is a true positive, every
    further one a false positive; a match of a difficult object counts as neither. Detections of equal score keep
    their order: that of the images, and within an image that of the input.

    A class without an object that is not difficult is left out of the mean; when that leaves no class, the results are
    NaN.

    Args:
        printed: also give `printed_AP` … `printed_AP75`, of the detections `as_printed`.
    """
    precision, counts = _voc_precision(detections)
    if not counts.any():
        return Measured(dict.fromkeys(("AP", "AP50", "AP75"), float("nan")), {})
    by_threshold = 100 * np.mean(precision[counts], axis=0)
    metrics = {
        "AP": float(by_threshold.mean()),
        "AP50": float(by_threshold[0]),
        "AP75": float(by_threshold[5]),
    }
    if printed:
        metrics |= {PRINTED + name: value for name, value in voc_average_precision(as_printed(detections))[0].items()}
    by_class = {name: 100 * float(precision[k].mean()) for k, name in enumerate(detections.classes) if counts[k]}
    by_iou = dict(zip(IOUS, by_threshold.tolist(), strict=True))
    return Measured(metrics, {"box": {"by_iou": by_iou, "by_class": by_class}})


def _voc_precision(detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """AP (C, T) of each class at each threshold as a fraction, and which of the classes count (C,)."""
    found, truth, classes = detections.found, detections.truth, len(detections.classes)
    order = np.lexsort((found.image, -found.score, found.label))  # stable
    image, label, box = found.image[order], found.label[order], found.box[order].astype(np.float64)
    iou, target = _best_overlap(
        image * classes + label, box, truth.image * classes + truth.label, truth.box.astype(np.float64)
    )
    hit, ignored = _judge(iou, target, truth.ignored)

    objects = np.bincount(truth.label[~truth.ignored], minlength=classes)
    ends = np.searchsorted(label, np.arange(classes + 1))
    precision = np.zeros((classes, len(THRESHOLDS)))
    for k in np.flatnonzero(objects):
        judged = zip(hit[ends[k] : ends[k + 1]].T, ignored[ends[k] : ends[k + 1]].T, strict=True)
        precision[k] = [interpolated(matched[~passed], objects[k], RECALLS) for matched, passed in judged]
    return precision, objects > 0


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
    """IoU (n,) of boxes (n, 4) with boxes (n, 4): 0 of two without area, and of one that is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        intersection = np.maximum(sides, 0).prod(1)
        union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - intersection
        return np.nan_to_num(intersection / np.maximum(union, _EPS), nan=0.0)


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


def as_printed(detections: Detections) -> Detections:
    """The detections as Detectron2 writes them: scores to three decimals, corners to one, in pixels from 1; float64.

    Of equal scores, those of earlier images come first, as everywhere here; Detectron2 leaves that to numpy's sort.
    """
    from_one = np.array([1, 1, 0, 0], np.float32)

    def rounded(values, decimals):
        return np.char.mod(f"%.{decimals}f", values).astype(np.float64)

    found = detections.found
    box, score = rounded(found.box + from_one, 1) - from_one, rounded(found.score, 3)
    return detections._replace(found=found._replace(box=box, score=score))


def coco_average_precision(
    detections: Detections, evaluator: str = "pycocotools", kinds: Sequence[str] = tuple(COCO_KINDS)
) -> Measured:
    """`box_AP`, `box_AP50`, `box_AP75`, `mask_AP`, `mask_AP50`, `mask_AP75` of COCO.

    Args:
        detections: with one object at least that is no crowd, and with masks where those are asked for.
        evaluator: whose evaluation, a key of `COCO_EVALUATORS`.
        kinds: of `COCO_KINDS`.

    Raises:
        UserError: there are no masks.
    """
    metrics, detail = {}, {}
    for kind in kinds:
        values, detail[kind] = _coco_means(detections.classes, **_coco_evaluation(detections, evaluator, kind))
        metrics |= {f"{kind}_{name}": value for name, value in values.items()}
    return Measured(metrics, detail)


def _coco_evaluation(detections: Detections, evaluator: str, kind: str) -> dict:
    """pycocotools' `eval`; all else that it makes, gigabytes of val2017, goes before the next kind."""
    index, evaluation_of = COCO_EVALUATORS[evaluator]
    iou, place = COCO_KINDS[kind]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth = index()
        truth.dataset = _coco_truth(detections, place)
        truth.createIndex()
        found = _coco_annotations(detections, detections.found, place, score=detections.found.score.tolist())
        evaluation = evaluation_of(truth, truth.loadRes(found) if found else index(), iou)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def _coco_means(classes: Sequence[str], precision, recall, **_) -> tuple[dict[str, float], dict]:
    """What pycocotools sums up of its `precision` (T, R, K, A, M) and `recall` (T, K, A, M), -1 where nothing counts.

    A are all objects, and small, medium and large ones; M detections an image, 1, 10 and 100.
    """

    def means(parts) -> dict[str, float]:
        counted = {name: values[values > -1] for name, values in parts.items()}
        return {name: 100 * float(values.mean()) for name, values in counted.items() if values.size}

    whole = precision[:, :, :, 0, -1]
    sizes = dict(enumerate(COCO_SIZES, 1))
    by_iou = dict(zip(IOUS, whole, strict=True))
    values = means({"AP": whole, "AP50": by_iou["50"], "AP75": by_iou["75"]})
    return values, {
        "by_iou": means(by_iou),
        "by_class": means({name: whole[:, :, k] for k, name in enumerate(classes)}),
        "by_size": means({name: precision[:, :, :, a, -1] for a, name in sizes.items()}),
        "recall": means(
            {name: recall[:, :, 0, m] for m, name in enumerate(COCO_RECALLS)}
            | {name: recall[:, :, a, -1] for a, name in sizes.items()}
        ),
    }


def _coco_truth(detections: Detections, place: str) -> dict:
    """What pycocotools reads from a file; ids of objects count from 1."""
    truth = detections.truth
    sizes = enumerate(detections.images.sizes.tolist())
    objects = {"id": range(1, 1 + len(truth.image)), "area": truth.area.tolist(), "iscrowd": truth.ignored.tolist()}
    return {
        "images": [{"id": number, "height": height, "width": width} for number, (height, width) in sizes],
        "categories": [{"id": label, "name": name} for label, name in enumerate(detections.classes)],
        "annotations": _coco_annotations(detections, truth, place, **objects),
    }


def _coco_annotations(detections: Detections, side: Truth | Found, place: str, **columns) -> list[dict]:
    """A dict for each of a side, with its box (x, y, width, height) or its mask at `place`, and further columns."""
    if place == "bbox":
        corner, opposite = np.split(side.box.astype(np.float64), 2, axis=1)
        outlines = np.concatenate([corner, opposite - corner], axis=1).tolist()
    elif side.mask is None:
        raise UserError("there are no masks to measure")
    else:
        sizes = detections.images.sizes[side.image].tolist()
        outlines = [as_coco(code, size) for code, size in zip(side.mask, sizes, strict=True)]
    columns |= {"image_id": side.image.tolist(), "category_id": side.label.tolist(), place: outlines}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


_MEASURES = {
    "VOCAveragePrecision": (voc_average_precision, ("printed",)),
    "COCOAveragePrecision": (coco_average_precision, ("evaluator", "kinds")),
}


class _OfTest(BaseMetric):
    """A metric of a test loop, which gathers `Detections` and measures them as `resim-bench score` does.

    After the test, `detections` and `detail` are those of all images, in the first process.
    """

    def compute_metrics(self, results):
        """The numbers over all images."""
        self.detections = self.gather(results)
        metrics, self.detail = measure(self.detections)
        return metrics


def _columns(instances, **more) -> dict:
    """Columns of MMDetection's instances of an image."""
    names = {"bboxes": "box", "labels": "label", "scores": "score"}
    return {names[key]: instances[key].cpu().numpy() for key in names if key in instances} | more


@METRICS.register_module()
class VOCAveragePrecision(_OfTest):
    """`voc_average_precision` of a test loop: `voc/AP`, `voc/AP50` and `voc/AP75`.

    Expects a data set with `metainfo["classes"]` and samples whose `gt_instances` are the objects to find and whose
    `ignored_instances` are the difficult ones.

    Args:
        printed: as `voc_average_precision` has it.
    """

    default_prefix = "voc"

    def __init__(self, printed=False, **kwargs):
        super().__init__(**kwargs)
        self.printed = printed

    def process(self, data_batch, data_samples):
        """Keep the predictions and the ground truth of a batch."""
        for sample in data_samples:
            objects, difficult = _columns(sample["gt_instances"]), _columns(sample["ignored_instances"])
            box = np.concatenate([objects["box"], difficult["box"]])
            truth = {
                "label": np.concatenate([objects["label"], difficult["label"]]),
                "box": box,
                "ignored": np.repeat([False, True], [len(objects["label"]), len(difficult["label"])]),
                "area": (box[:, 2:] - box[:, :2]).astype(np.float64).prod(axis=1),
            }
            found = _columns(sample["pred_instances"])
            self.results.append({"id": sample["img_id"], "size": sample["ori_shape"], "truth": truth, "found": found})

    def gather(self, results):
        """The detections of all images."""
        images = Images([image["id"] for image in results], np.array([image["size"] for image in results]))
        sides = {
            side: gather(side, [image[side] for image in results], range(len(results))) for side in ("truth", "found")
        }
        metric = {"type": type(self).__name__, "printed": self.printed}
        return Detections(images, tuple(self.dataset_meta["classes"]), **sides, metric=metric)


@METRICS.register_module()
class COCOAveragePrecision(_OfTest):
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
            found = sample["pred_instances"]
            masks = {"mask": encode(found["masks"].cpu().numpy())} if "mask" in self.kinds else {}
            self.results.append({"id": sample["img_id"], "found": _columns(found, **masks)})

    def gather(self, results):
        """The detections of all images, and what there was to find."""
        folder, classes, masks = DATASETS.get(self.folder), self.dataset_meta["classes"], "mask" in self.kinds
        test = folder.read_once(folder.find(self.data_root), "test", masks)
        test.survey.refuse()
        images, truth = folder.ground_truth(test, classes, masks)
        results = sorted(results, key=lambda image: image["id"])
        found = gather("found", [image["found"] for image in results], [image["id"] - 1 for image in results])
        metric = {"type": type(self).__name__, "evaluator": self.evaluator, "kinds": list(self.kinds)}
        return Detections(images, tuple(classes), truth, found, metric)
