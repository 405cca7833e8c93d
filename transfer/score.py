"""A transfer's detections, measured again and held against its record: without a training, the data or a GPU."""

from pathlib import Path

import numpy as np

from resim_bench import record
from resim_bench.errors import UserError, one_line
from resim_bench.harness import runs
from resim_bench.machine.estimate import aligned
from resim_bench.record import ERRORS
from transfer import settings
from transfer.detections import SUFFIX, Detections, read
from transfer.metrics import COCO_KINDS, COCO_RECALLS, COCO_SIZES, IOUS, Measured, measure


def score(file: Path) -> tuple[str, bool]:
    """What comes out, as text, and whether it is what the record says, to the last digit.

    Args:
        file: a record, or its detections; where no record stands beside them, they are held against nothing.

    Raises:
        UserError: there are no detections, or they are not those that the record names.
    """
    detections, entry, what = opened(Path(file))
    settings.check_metric(detections.metric)
    measured = measure(detections)
    tables = _headline(measured), _by_iou(measured), _by_class(measured, detections), _errors(measured)
    verdict, equal = _compared(measured, entry)
    parts = [_title(detections, what), *("\n".join(aligned(table)) for table in tables), verdict]
    return "\n\n".join(parts) + "\n", equal


def opened(file: Path) -> tuple[Detections, dict | None, str]:
    """Detections, their record where there is one, and what to call them.

    Args:
        file: as `score` takes it.

    Raises:
        UserError: as `score` has it.
    """
    entry, place = _locate(file)
    detections = read(place, entry["detections"]["sha256"] if entry else None)
    if entry is None:
        return detections, None, str(place)
    pretrain, transfer, *seeds = record.key(entry)
    return detections, entry, f"{pretrain} through {transfer}, seeds {seeds[0]} and {seeds[1]}"


def _locate(file: Path) -> tuple[dict | None, Path]:
    if file.suffix != ".json":
        beside = file.with_name(file.name.removesuffix(SUFFIX) + ".json")
        if not (file.name.endswith(SUFFIX) and beside.is_file()):
            return None, file
        file = beside
    entry = record.read(file)
    if "detections" not in entry:
        raise UserError(
            f"{file} names no detections: records of probes do not, nor those from before they were kept; give "
            "another, or run its trial again"
        )
    return entry, file.with_name(entry["detections"]["file"])


def _title(detections: Detections, what: str) -> str:
    count = int((~detections.truth.ignored).sum())
    return (
        f"{what}: {len(detections.found.image):,} detections in {len(detections.images.ids):,} images, "
        f"{count:,} objects to find, {len(detections.classes):,} classes"
    )


def _headline(measured: Measured) -> list[list[str]]:
    """The metrics and what COCO has beside them, a row for each kind."""
    rows: dict[str, dict] = {}
    for name, value in measured.metrics.items():
        start = name.index("AP")
        rows.setdefault(name[:start].strip("_") or "box", {})[name[start:]] = value
    for kind, detail in _of_kinds(measured).items():
        for before, part, names in (("", "by_size", COCO_SIZES), ("AR@", "recall", COCO_RECALLS)):
            if part in detail:
                rows[kind] |= {before + name: detail[part].get(name) for name in names}
    heads = list(max(rows.values(), key=len))
    return [["", *heads], *([kind, *(_shown(row.get(head)) for head in heads)] for kind, row in rows.items())]


def _by_iou(measured: Measured) -> list[list[str]]:
    kinds = _of_kinds(measured).items()
    rows = ([kind, *(_shown(detail["by_iou"].get(iou)) for iou in IOUS)] for kind, detail in kinds)
    return [["AP at IoU", *(f".{iou}" for iou in IOUS)], *rows]


def _by_class(measured: Measured, detections: Detections) -> list[list[str]]:
    truth, kinds = detections.truth, _of_kinds(measured)
    objects = np.bincount(truth.label[~truth.ignored], minlength=len(detections.classes)).tolist()
    rows = (
        [one_line(name), f"{count:,}", *(_shown(kind["by_class"].get(name)) for kind in kinds.values())]
        for name, count in zip(detections.classes, objects, strict=True)
    )
    return [["AP by class", "objects", *kinds], *rows]


def _errors(measured: Measured) -> list[list[str]]:
    rows = (
        [f"{kind} at .{iou.partition('.')[2]:0<2}", *(_shown(costs[name]) for name in ERRORS)]
        for kind, by_iou in measured.detail.get("errors", {}).items()
        for iou, costs in by_iou.items()
    )
    return [["errors cost", *(name.replace("_", " ") for name in ERRORS)], *rows]


def _of_kinds(measured: Measured) -> dict[str, dict]:
    """The detail of boxes and of masks."""
    return {kind: measured.detail[kind] for kind in COCO_KINDS if kind in measured.detail}


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _compared(measured: Measured, entry: dict | None) -> tuple[str, bool]:
    """Whether the numbers are the record's, as a sentence and as an answer."""
    if entry is None:
        return "No record stands beside them, to hold them against.", True
    found = measured._asdict()
    differing = runs.differences({key: entry.get(key) for key in found}, found)
    count = len(runs.flatten(found))
    if not differing:
        return f"All {count} numbers are the record's, to the last digit.", True
    shown = [f"{one_line(name)} was {was} and is {now}" for name, (was, now) in list(differing.items())[:3]]
    more = ", …" * (len(differing) > len(shown))
    return f"{len(differing)} of {count} numbers are not the record's: {', '.join(shown)}{more}.", False
