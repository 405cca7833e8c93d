"""What each kind of error costs: TIDE's analysis (Bolya et al. 2020, arXiv:2008.08115) of the detections of a test.

A detection is right when it is matched: by falling score, each takes the object of its image and class with which its
IoU is largest of those that are still free, where that is `iou` at least. Any other has the first kind that fits, by
its largest IoU with an object of its own class (same) and of another (other), free or not:

    localisation     background <= same <= iou
    classification   other >= iou
    duplicate        same > iou: a better-scored detection has the object
    background       same and other <= background
    both             the rest: neither the place nor the class is right

An object is missed when it is not matched, and no localisation or classification error is nearest to it.

The cost of a kind is the AP that is gained when all its errors are mended and no others. Duplicate, background, both:
the detections go. Localisation, classification: of all those of either kind that are nearest to an object the
best-scored is made right, unless the object is matched; the others go. Missed: the objects go. False positives: all
detections go that are not right; false negatives: all objects that are not matched.

Ignored objects (VOC's difficult ones, crowds) are not to be found. A detection that is not right does not count where
more than `iou` of its area lies in one of its class; it can be made right as any other.

AP is by 101 points of recall and the mean over classes that have objects. Of a class whose last object went it is 0
while there are detections; else the class is left out. Where that leaves no class, it is 100.
"""

import numpy as np
from pycocotools import mask as run_length

from resim_bench.record import ERRORS
from transfer.curves import interpolated
from transfer.detections import Detections, Found, Truth

RIGHT, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND, BOTH = range(6)
KINDS = {
    "classification": CLASSIFICATION,
    "localisation": LOCALISATION,
    "both": BOTH,
    "duplicate": DUPLICATE,
    "background": BACKGROUND,
}
RECALLS = np.arange(101) / 100
THRESHOLDS = (0.5, 0.75)  # TIDE's, and a stricter one beside it


def analysis(detections: Detections) -> dict[str, dict[str, dict[str, float]]]:
    """The costs as a record has them: of "box" and, where there are masks, of "mask"; by threshold, by name.

    Empty where no object is to be found.
    """
    kinds = {"box": False} if detections.found.mask is None else {"box": False, "mask": True}
    if detections.truth.ignored.all():
        return {}
    return {
        kind: {str(iou): costs(detections, iou, masks=masks) for iou in THRESHOLDS} for kind, masks in kinds.items()
    }


def costs(detections: Detections, iou: float = 0.5, background: float = 0.1, masks: bool = False) -> dict[str, float]:
    """AP and the AP that each kind of error costs, in per cent and unrounded: the keys are `record.ERRORS`.

    Args:
        detections: those of equal score keep their order: that of the images, and within an image that of the input.
        iou, background: the overlaps that tell the kinds apart, both above 0.
        masks: of masks, not of boxes.

    Returns:
        NaN for each where no object is to be found.
    """
    truth, found = detections.truth, in_order(detections.found)
    label, objects = truth.label, np.bincount(truth.label[~truth.ignored], minlength=len(detections.classes))
    if not objects.any():
        return dict.fromkeys(ERRORS, float("nan"))
    kind, target, ignored = judge(detections._replace(found=found), iou, background, masks)

    right = kind == RIGHT
    unmatched = ~truth.ignored
    unmatched[target[right]] = False
    near = np.flatnonzero(np.isin(kind, (LOCALISATION, CLASSIFICATION)) & unmatched[target])
    nearly_found, best_scored = np.unique(target[near], return_index=True)
    mends = np.zeros(len(kind), bool)
    mends[near[best_scored]] = True
    missed = unmatched.copy()
    missed[nearly_found] = False
    ranks = np.argsort(-found.score, kind="stable")

    def average_precision(false, mended=False, left=objects) -> float:
        """Of these false detections and those that are right or made right, with so many objects left."""
        kept = ranks[(right | false | mended)[ranks]]
        of_class = np.where(mended, label[target], found.label)[kept]
        return _mean_precision(of_class, (right | mended)[kept], objects, left)

    def without(gone: np.ndarray) -> np.ndarray:
        return objects - np.bincount(label[gone], minlength=len(objects))

    false = ~right & ~ignored
    now = average_precision(false)
    then = {name: average_precision(false & (kind != of), mends & (kind == of)) for name, of in KINDS.items()}
    then["missed"] = average_precision(false, left=without(missed))
    then["false_positives"] = average_precision(False)
    then["false_negatives"] = average_precision(false, left=without(unmatched))
    return {"AP": now} | {name: value - now for name, value in then.items()}


def in_order(found: Found) -> Found:
    """The detections by image, and within an image by falling score."""
    order = np.lexsort((-found.score, found.image))
    mask = None if found.mask is None else [found.mask[place] for place in order]
    return Found(*(column[order] for column in found[:4]), mask)


def judge(detections: Detections, iou: float, background: float, masks: bool) -> tuple[np.ndarray, ...]:
    """Of each detection its kind, the object that it has or is nearest to, whether an ignored one has it: (N,) each.

    Detections come as `in_order` leaves them; where a kind is near no object, the object means nothing.
    """
    truth, found, sizes = detections.truth, detections.found, detections.images.sizes
    kind, target = np.zeros((2, len(found.label)), np.int64)
    ignored = np.zeros(len(found.label), bool)
    groups = (
        _by_image(found.image, np.ones_like(ignored), len(sizes)),
        _by_image(truth.image, ~truth.ignored, len(sizes)),
        _by_image(truth.image, truth.ignored, len(sizes)),
    )
    for size, mine, objects, regions in zip(sizes, *groups, strict=True):
        if not len(mine):
            continue
        label, shapes = found.label[mine, None], _shapes(found, mine, size, masks)
        overlap = np.zeros((len(mine), len(objects) + 1))  # the last column is of no object
        if len(objects):
            overlap[:, :-1] = run_length.iou(shapes, _shapes(truth, objects, size, masks), [False] * len(objects))
        same_class = label == np.append(truth.label[objects], -1)
        same, other = overlap * same_class, overlap * ~same_class
        taken, best = _match(same, iou), same.max(1)
        fits = {
            RIGHT: taken >= 0,
            LOCALISATION: (background <= best) & (best <= iou),
            CLASSIFICATION: other.max(1) >= iou,
            DUPLICATE: best > iou,
            BACKGROUND: overlap.max(1) <= background,
        }
        first = np.select([*fits.values()], [*fits], BOTH)
        near = {RIGHT: taken, LOCALISATION: same.argmax(1), CLASSIFICATION: other.argmax(1)}
        column = np.select([first == of for of in near], [*near.values()], len(objects))
        kind[mine], target[mine] = first, np.append(objects, 0)[column]
        if len(regions):
            inside = run_length.iou(shapes, _shapes(truth, regions, size, masks), [True] * len(regions))
            ignored[mine] = ((inside > iou) & (label == truth.label[regions])).any(1)
    return kind, target, ignored


def _by_image(image: np.ndarray, chosen: np.ndarray, images: int) -> list[np.ndarray]:
    """Which of the chosen rows are of each image, in their order."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(image[rows], kind="stable")]
    ends = np.searchsorted(image[rows], np.arange(images), side="right")
    return np.split(rows, ends)[:-1]


def _shapes(of: Truth | Found, rows: np.ndarray, size: np.ndarray, masks: bool):
    """Boxes (n, 4) of corner and sides in float64, or run-length codes: what pycocotools overlaps."""
    if masks:
        return [{"size": size.tolist(), "counts": of.mask[row]} for row in rows]
    box = of.box[rows].astype(np.float64)
    return np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1)


def _match(same: np.ndarray, iou: float) -> np.ndarray:
    """The object (n,) that each detection takes, −1 for none, by its overlap (n, m) with those of its class."""
    taken = np.full(len(same), -1)
    free = same.copy()
    for row in np.flatnonzero(same.max(1) >= iou):
        column = free[row].argmax()
        if free[row, column] >= iou:
            taken[row] = column
            free[:, column] = 0
    return taken


def _mean_precision(label: np.ndarray, right: np.ndarray, objects: np.ndarray, left: np.ndarray) -> float:
    """AP of detections by falling score, over the classes that have `objects`; `left` (classes,) are to be found."""
    order = np.argsort(label, kind="stable")
    right, ends = right[order], np.searchsorted(label[order], np.arange(len(objects) + 1))
    values = []
    for of in np.flatnonzero(objects):
        judged = right[ends[of] : ends[of + 1]]
        if left[of]:
            values.append(interpolated(judged, left[of], RECALLS))
        elif len(judged):
            values.append(0.0)
    return 100 * float(np.mean(values)) if values else 100.0
