"""`resim-bench score`: what it prints, when it agrees with a record, and what it refuses."""

import json

import numpy as np
import pytest

from resim_bench import cli, record
from tests.transfer.test_detections import some
from transfer.detections import SUFFIX, Detections, Found, Images, Truth, write
from transfer.metrics import measure

SHOWN = """\
in100-moco-v2 through voc-full, seeds 0 and 0: 3 detections in 2 images, 2 objects to find, 3 classes

           AP  AP50  AP75
box      67.5  75.0  75.0
printed  67.5  75.0  75.0

AP at IoU   .50   .55   .60   .65   .70   .75   .80   .85   .90   .95
box        75.0  75.0  75.0  75.0  75.0  75.0  75.0  50.0  50.0  50.0

AP by class  objects    box
cat                1  100.0
dog                1   35.0
sheep              0      –

errors cost    AP  classification  localisation  both  duplicate  background  missed  false positives  false negatives
box at .50   75.0             0.0           0.0   0.0        0.0        25.0     0.0             25.0              0.0
box at .75   75.0             0.0           0.0   0.0        0.0        25.0     0.0             25.0              0.0

All 36 numbers are the record's, to the last digit.
"""


@pytest.fixture
def voc():
    """One of two objects is found well, one on .8 of itself behind a false alarm; a class has a difficult one alone."""
    square = [10.0, 10, 30, 30]
    truth = Truth(
        image=np.array([0, 1, 1]),
        label=np.array([0, 1, 2]),
        box=np.array([square] * 3),
        ignored=np.array([False, False, True]),
        area=np.full(3, 400.0),
    )
    found = Found(
        image=np.array([0, 1, 1]),
        label=np.array([0, 1, 1]),
        box=np.array([square, [50, 50, 60, 60], [10, 10, 30, 26.1]], np.float32),
        score=np.array([0.9, 0.8, 0.7], np.float32),
    )
    images = Images(["000001", "000002"], np.array([[60, 90], [60, 90]]))
    metric = {"type": "VOCAveragePrecision", "printed": True}
    return Detections(images, ("cat", "dog", "sheep"), truth, found, metric)


@pytest.fixture
def keep(tmp_path, make_record):
    """Puts detections and their record in place, as a transfer does; returns where the record is."""

    def put(detections, **changes):
        entry = make_record("in100-moco-v2", "voc-full")
        beside = record.path(tmp_path, *record.key(entry)).with_suffix(SUFFIX)
        kept = {"file": beside.name, "sha256": write(beside, detections)}
        entry |= measure(detections)._asdict() | {"detections": kept}
        return record.write(tmp_path, entry | changes)

    return put


def test_it_prints_the_numbers_and_finds_them_equal(voc, keep, capsys):
    place = keep(voc)
    for file in (place, place.with_suffix(SUFFIX)):
        assert cli.main(["score", str(file)]) == 0
        assert capsys.readouterr().out == SHOWN


def test_a_last_digit_is_another_number(voc, keep, capsys):
    metrics, detail = measure(voc)
    place = keep(voc, metrics=metrics | {"AP": float(np.nextafter(metrics["AP"], 100))})
    assert cli.main(["score", str(place)]) == 1
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "1 of 36 numbers are not the record's: metrics.AP was 67.50000000000001 and is 67.5."
    detail["box"]["by_iou"] = {}
    assert cli.main(["score", str(keep(voc, detail=detail))]) == 1
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("11 of 36 numbers are not the record's: detail.box.by_iou was {} and is None, ")


def test_without_a_record_there_is_nothing_to_compare_with(voc, tmp_path, capsys):
    file = tmp_path / f"mine{SUFFIX}"
    write(file, voc)
    assert cli.main(["score", str(file)]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{file}: 3 detections in 2 images") and lines == SHOWN.splitlines()[1:-1]
    assert last == "No record stands beside them, to hold them against."


def test_coco_shows_sizes_recall_and_masks(keep, capsys):
    assert cli.main(["score", str(keep(some()))]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[2] == ["AP", "AP50", "AP75", "small", "medium", "large", "AR@1", "AR@10", "AR@100"]
    assert [line[0] for line in shown[3:5]] == ["box", "mask"] and shown[3][5:7] == ["–", "–"]
    assert ["AP", "by", "class", "objects", "box", "mask"] in shown


def _tampered(place):
    other = place.with_suffix(SUFFIX)
    other.write_bytes(other.read_bytes().replace(b"found.score", b"found.scare"))
    return place


def _away(place):
    place.with_suffix(SUFFIX).unlink()
    return place


def _without(place):
    entry = record.content(json.loads(place.read_text()))
    del entry["detections"]
    return record.write(place.parents[2], entry)


def _text(place):
    file = place.with_name("notes.txt")
    file.write_text("AP is high")
    return file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_tampered, "has changed since it was written (another checksum than its record names): restore it, or delete"),
        (_away, "cannot read the detections"),
        (_without, "names no detections: records of probes do not, nor those from before they were kept"),
        (_text, "notes.txt holds no detections, or is damaged"),
        (lambda place: place.with_name("nothing.json"), "cannot read the record"),
        (lambda place: place.parent, "cannot read the detections"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(voc, keep, capsys, change, said):
    assert cli.main(["score", str(change(keep(voc)))]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({}, "metric.type is missing"),
        ({"type": "Accuracy"}, "metric.type is 'Accuracy': give VOCAveragePrecision or COCOAveragePrecision"),
        ({"type": "COCOAveragePrecision", "evaluator": "mine"}, "metric.evaluator is 'mine'"),
        ({"type": "COCOAveragePrecision"}, "there are no masks to measure"),
    ],
)
def test_a_metric_that_there_is_not_is_refused(voc, tmp_path, capsys, metric, said):
    write(tmp_path / "x", voc._replace(metric=metric))
    assert cli.main(["score", str(tmp_path / "x")]) == 2
    assert said in capsys.readouterr().err
