"""What a detection run, a probe or `judge` leaves behind: a JSON file per trial, facts only, never a verdict.

    {"schema": 1,
     "pretrain": {"id", "seed", "epochs", "backbone_sha256", "protocol", "overrides", "deviations", "data"},
     "transfer": {"id", "seed", "protocol", "overrides", "deviations", "data"},
     "metrics": {"AP": …, "AP50": …, "AP75": …},       unrounded, in per cent; of COCO "box_AP" … "mask_AP75"; of voc-*
                                                       also "printed_AP" …, of detections as Detectron2 rounds them
     "detail": {"box": {"by_iou": …, "by_class": …},   the same AP in parts, as `transfer.metrics` has it; of COCO also
                "errors": {"box": {"0.5": …}}},        "by_size" and "recall", and "mask"; and what errors cost of it
     "detections": {"file", "sha256"},                 beside the record, for `resim-bench score`
     "versions": {package: version}, "commit": …, "device": …, "seconds": …, "finished": ISO-8601, UTC}

`overrides` is {dotted key: value given on the command line}; `deviations` is {setting: [canonical, run]}, empty
for a run that followed its protocol. Probes have no `detail` and no `detections`, nor have records from before there
were any. Further keys are kept as they are. `sha256` is the checksum of all others; records from before there was one
are taken as they are.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from resim_bench import files
from resim_bench.errors import UserError
from resim_bench.experiments import ID

SCHEMA = 1
CHECKSUM = "sha256"
PRINTED = "printed_"  # before the name of a metric that Detectron2's rounding went into
ERRORS = (  # what `detail.errors` has of a kind of AP and a threshold: AP, and what each kind of error costs of it
    "AP",
    "classification",
    "localisation",
    "both",
    "duplicate",
    "background",
    "missed",
    "false_positives",
    "false_negatives",
)
_NUMBER = (int, float)
_SIDE = {"id": str, "seed": int, "protocol": dict, "overrides": dict, "deviations": dict, "data": (str, dict)}
_SPEC = {
    "schema": int,
    "pretrain": _SIDE | {"epochs": (*_NUMBER, type(None)), "backbone_sha256": str},  # of given weights: unknown
    "transfer": _SIDE,
    "metrics": dict,
    "versions": dict,
    "commit": str,
    "device": str,
    "seconds": _NUMBER,
    "finished": str,
}
_OPTIONAL: dict = {"detail": {}, "detections": {"file": str, "sha256": str}}


def path(root, pretrain_id: str, transfer_id: str, pretrain_seed: int, transfer_seed: int) -> Path:
    """Where the record of a trial stands below `root`."""
    name = f"pretrain-{pretrain_seed}_transfer-{transfer_seed}.json"
    return Path(root) / pretrain_id / transfer_id / name


def places(work_dir, room: str, *names) -> tuple[Path, Path]:
    """Where the record of a trial stands, and where the run that leaves it goes, in the `room` of a work directory."""
    output = path(Path(work_dir) / "records", *names)
    return output, Path(work_dir) / room / output.relative_to(Path(work_dir) / "records").with_suffix("")


def key(record: dict) -> tuple[str, str, int, int]:
    """What names a trial: pre-training id, transfer id and their two seeds."""
    pretrain, transfer = record["pretrain"], record["transfer"]
    return pretrain["id"], transfer["id"], pretrain["seed"], transfer["seed"]


def digest(value) -> str:
    """sha256 of a JSON-able value such as a protocol, in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


PRETRAIN_KEYS = ("id", "seed", "epochs", "protocol", "overrides", "deviations", "data")  # of a backbone's provenance
OF_EPOCHS = "of_epochs"  # of a backbone on the way: how many its training has


def claim_of(output) -> dict:
    """The configuration that a record says it is of, as the runs that leave records state it."""
    entry = read(output)
    side, backbone = entry["transfer"], entry["pretrain"]["backbone_sha256"]
    return {"transfer": side["id"], "backbone": backbone} | {key: side[key] for key in ("protocol", "seed", "data")}


def of_trial(
    provenance: dict, backbone_sha256: str, transfer: dict, metrics: dict, seconds: float, environment: dict
) -> dict:
    """The record of a trial that has ended just now.

    Args:
        provenance: of the backbone.
        transfer: the record's side of that name.
        environment: as `runs.environment` has it.
    """
    return {
        "schema": SCHEMA,
        "pretrain": {"backbone_sha256": backbone_sha256}
        | {key: provenance[key] for key in PRETRAIN_KEYS}
        | {key: provenance[key] for key in (OF_EPOCHS,) if key in provenance},
        "transfer": transfer,
        "metrics": metrics,
        **environment,
        "seconds": seconds,
        "finished": now(),
    }


def content(record: dict) -> dict:
    """What a record says, without its checksum."""
    return {key: value for key, value in record.items() if key != CHECKSUM}


def deviations(record: dict) -> dict[str, list]:
    """`{"pretrain.setting": [canonical, run], "transfer.setting": …}`; empty when the protocol was followed."""
    return {
        f"{side}.{setting}": values
        for side in ("pretrain", "transfer")
        for setting, values in record[side]["deviations"].items()
    }


def write(root, record: dict) -> Path:
    """Validate `record` and put it in its place below `root`; a reader finds the whole file or the one before.

    Raises:
        UserError: the record is incomplete, or has a value (NaN, infinity) that JSON cannot hold.
    """
    _validate(record, "the record")
    place = path(root, *key(record))
    try:
        record = json.loads(json.dumps(content(record), allow_nan=False))
        text = json.dumps(record | {CHECKSUM: digest(record)}, indent=1, sort_keys=True) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"the record for {place} cannot be written as JSON ({error})") from error
    with files.replacing(place) as stream:
        stream.write(text.encode())
    return place


def read(file) -> dict:
    """The record in `file`.

    Raises:
        UserError: it cannot be read, is cut short, is no valid record, has changed since it was written, or does not
            stand where its ids and seeds say.
    """
    file = Path(file)
    try:
        record = json.loads(files.read(file))
    except OSError as error:
        raise UserError(f"cannot read the record {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON, perhaps cut short ({error}): delete it and run its trial again") from error
    check(record, str(file))
    place = path("", *key(record))
    if file.resolve().parts[-3:] != place.parts:
        raise UserError(f"{file} holds the record of another trial: move it to {place} in its records folder")
    return record


def check(record, name: str) -> None:
    """Refuse what is no record, or has changed since it was written.

    Args:
        name: of the record, as a sentence begins.

    Raises:
        UserError: as above.
    """
    _validate(record, name)
    if CHECKSUM in record and record[CHECKSUM] != digest(content(record)):
        raise UserError(
            f"{name} has changed since it was written (another checksum): restore it, or delete it and run its trial "
            "again"
        )


def _validate(record, name: str) -> None:
    def refuse(problem: str):
        raise UserError(f"{name} is no valid record: {problem}")

    if not isinstance(record, dict):
        refuse("it is not a JSON object")
    if record.get("schema", SCHEMA) != SCHEMA:
        refuse(f"it has schema {record['schema']!r}, this version reads schema {SCHEMA}")
    _check_types(record, _SPEC | {key: spec for key, spec in _OPTIONAL.items() if key in record}, "", refuse)
    for side in ("pretrain", "transfer"):
        if not ID.fullmatch(record[side]["id"]):
            refuse(f"{side}.id {record[side]['id']!r} is not a plain name")
        if record[side]["seed"] < 0:
            refuse(f"{side}.seed is negative")
        for setting, values in record[side]["deviations"].items():
            if not isinstance(values, list | tuple) or len(values) != 2:
                refuse(f"{side}.deviations.{setting} is not a pair [canonical, run]")
    if not record["metrics"]:
        refuse("metrics is empty")
    if any(isinstance(value, dict) for value in record["metrics"].values()):
        refuse("metrics are not numbers by name")
    _check_detail(record.get("detail", {}), refuse)
    if not _is(record["transfer"].get("images_per_process", 1), int):
        refuse("transfer.images_per_process is no whole number")
    for metric, value in (*_leaves(record["metrics"], "metrics"), *_leaves(record.get("detail", {}), "detail")):
        if not _is(value, _NUMBER) or not 0 <= value <= 100:  # which NaN and what no float holds are not
            refuse(f"{metric} is {value!r}, not a number of per cent from 0 to 100")
    file = record.get("detections", {"file": "x"})["file"]
    if not file or "\0" in file or Path(file).name != file:
        refuse(f"detections.file {file!r} is no name of a file beside it")
    if not 0 <= record["seconds"] <= sys.float_info.max:
        refuse(f"seconds is {record['seconds']!r}")
    if not _is_utc(record["finished"]):
        refuse(f"finished {record['finished']!r} is no ISO-8601 time in UTC")


def _check_detail(detail: dict, refuse) -> None:
    for kind, parts in detail.items():
        if not _is_nested(parts, 3 if kind == "errors" else 2):
            refuse(f"detail.{kind} is not numbers by name and part")
    for by_iou in detail.get("errors", {}).values():
        for iou, costs in by_iou.items():
            if not re.fullmatch(r"0\.\d+", iou) or costs.keys() != set(ERRORS):
                refuse(f"detail.errors has {iou!r}, which is no IoU with what each kind of error costs")


def _is_nested(value, depth: int) -> bool:
    """Whether these are objects in objects, so many deep, and then no more."""
    if not depth:
        return not isinstance(value, dict)
    return isinstance(value, dict) and all(_is_nested(inner, depth - 1) for inner in value.values())


def _check_types(values: dict, spec: dict, prefix: str, refuse) -> None:
    for key, wanted in spec.items():
        name = prefix + key
        if key not in values:
            refuse(f"{name} is missing")
        if isinstance(wanted, dict):
            if not isinstance(values[key], dict):
                refuse(f"{name} is {type(values[key]).__name__}, not an object")
            _check_types(values[key], wanted, f"{name}.", refuse)
        elif not _is(values[key], wanted):
            kinds = " or ".join(kind.__name__ for kind in (wanted if isinstance(wanted, tuple) else (wanted,)))
            refuse(f"{name} is {type(values[key]).__name__}, not {kinds}")


def _leaves(value, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}")
    else:
        yield name, value


def _is(value, kinds) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_utc(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False


def now() -> str:
    """The present moment as `finished` wants it, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
