"""VOC average precision by brute force: one class, one threshold, one detection at a time.

Written from the definition (Everingham et al., VOC2007 development kit; Detectron2's evaluator), not from
`transfer/metrics.py`, and slow on purpose.
"""


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def class_average_precision(detections, ground_truth, label, threshold):
    """11-point AP of one class as a fraction; None when the class has no object that counts."""
    positives = 0
    for image in ground_truth:
        for object_label, difficult in zip(image["labels"], image["difficult"], strict=True):
            if object_label == label and not difficult:
                positives += 1
    if positives == 0:
        return None

    ranked = []
    for number, image in enumerate(detections):
        for box, score, detected in zip(image["boxes"], image["scores"], image["labels"], strict=True):
            if detected == label:
                ranked.append((float(score), number, [float(x) for x in box]))
    ranked.sort(key=lambda detection: -detection[0])  # Python's sort keeps the order of equal scores

    taken = set()
    true_positives = false_positives = 0
    curve = []
    for _, number, box in ranked:
        image = ground_truth[number]
        best, best_object = 0.0, None
        for index, (object_box, object_label) in enumerate(zip(image["boxes"], image["labels"], strict=True)):
            if object_label == label and iou(box, [float(x) for x in object_box]) > best:
                best, best_object = iou(box, [float(x) for x in object_box]), index
        if best > threshold:
            if image["difficult"][best_object]:
                continue
            if (number, best_object) in taken:
                false_positives += 1
            else:
                taken.add((number, best_object))
                true_positives += 1
        else:
            false_positives += 1
        curve.append((true_positives / positives, true_positives / (true_positives + false_positives)))

    total = 0.0
    for point in range(11):
        # the product 0.1 * k in floating point, as numpy.arange(0, 1.1, 0.1) gives it
        reached = [precision for recall, precision in curve if recall >= 0.1 * point]
        total += max(reached, default=0.0)
    return total / 11


def voc_average_precision(detections, ground_truth, num_classes):
    by_threshold = []
    for percent in range(50, 100, 5):
        values = []
        for label in range(num_classes):
            value = class_average_precision(detections, ground_truth, label, percent / 100)
            if value is not None:
                values.append(value)
        by_threshold.append(100 * sum(values) / len(values))
    return {"AP": sum(by_threshold) / 10, "AP50": by_threshold[0], "AP75": by_threshold[5]}
