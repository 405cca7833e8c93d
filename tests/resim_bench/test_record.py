import copy
import json
import os

import pytest

from resim_bench import evidence, record
from resim_bench.errors import UserError


@pytest.fixture
def one():
    side = {"seed": 3, "protocol": {"batch": 16}, "overrides": {}, "deviations": {}, "data": "0" * 64}
    return {
        "schema": 1,
        "pretrain": {"id": "in100-moco-v2", "epochs": 500, "backbone_sha256": "f" * 64} | side,
        "transfer": {"id": "voc-full"} | side | {"seed": 4},
        "metrics": {"AP": 54.123456789, "AP50": 80.0, "AP75": 60.0},
        "versions": {"torch": "2.11.0"},
        "commit": "abc",
        "device": "2 x cpu",
        "seconds": 12.5,
        "finished": "2025-01-02T03:04:05+00:00",
    }


def changed(one, dotted, value):
    """A copy of the record with one value replaced, or removed where `value` is `...`."""
    other = copy.deepcopy(one)
    *parents, key = dotted.split(".")
    holder = other
    for parent in parents:
        holder = holder[parent]
    if value is ...:
        del holder[key]
    else:
        holder[key] = value
    return other


def test_written_in_its_place_and_read_back_unrounded(one, tmp_path):
    place = record.write(tmp_path, one)
    assert place == tmp_path / "in100-moco-v2/voc-full/pretrain-3_transfer-4.json"
    assert record.path(tmp_path, "in100-moco-v2", "voc-full", 3, 4) == place
    assert record.content(record.read(place)) == one
    assert record.key(one) == ("in100-moco-v2", "voc-full", 3, 4)
    assert os.listdir(place.parent) == [place.name]
    assert place.stat().st_mode & 0o044 == 0o044, "others can read it"


def test_deviations_of_both_sides(one):
    assert record.deviations(one) == {}
    one["pretrain"]["deviations"] = {"epochs": [500, 1]}
    one["transfer"]["deviations"] = {"epochs": [12, 2]}
    assert record.deviations(one) == {"pretrain.epochs": [500, 1], "transfer.epochs": [12, 2]}


def test_now_is_a_valid_finished(one, tmp_path):
    record.write(tmp_path, changed(one, "finished", record.now()))


def test_an_interrupted_write_leaves_the_record_before(one, tmp_path, monkeypatch):
    place = record.write(tmp_path, one)

    def fail(*args):
        raise KeyboardInterrupt

    for moment in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, moment, fail)
            with pytest.raises(KeyboardInterrupt):
                record.write(tmp_path, changed(one, "metrics.AP", 1.0))
        assert record.content(record.read(place)) == one
        assert os.listdir(place.parent) == [place.name]


@pytest.mark.parametrize(
    ("dotted", "value", "problem"),
    [
        ("metrics.AP", float("nan"), r"metrics\.AP is nan"),
        ("metrics.AP", float("inf"), r"metrics\.AP is inf"),
        ("metrics.AP", 100.5, "from 0 to 100"),
        ("metrics.AP", "54", "metrics.AP is '54'"),
        ("metrics.AP", True, "metrics.AP is True"),
        ("metrics", {}, "metrics is empty"),
        ("metrics", ..., "metrics is missing"),
        ("transfer.protocol", {"clip": float("inf")}, "cannot be written as JSON"),
        ("transfer.protocol", {"object": object()}, "cannot be written as JSON"),
        ("pretrain.backbone_sha256", ..., r"pretrain\.backbone_sha256 is missing"),
        ("transfer.deviations", ..., r"transfer\.deviations is missing"),
        ("transfer.deviations", {"lr": 3}, r"transfer\.deviations\.lr is not a pair"),
        ("transfer", [], "transfer is list, not an object"),
        ("transfer.seed", "0", "transfer.seed is str, not int"),
        ("transfer.seed", True, "transfer.seed is bool, not int"),
        ("transfer.seed", -1, "transfer.seed is negative"),
        ("pretrain.id", "../elsewhere", "not a plain name"),
        ("pretrain.data", 3, "pretrain.data is int, not str or dict"),
        ("schema", 2, "has schema 2, this version reads schema 1"),
        ("schema", ..., "schema is missing"),
        ("seconds", -1.0, "seconds is -1.0"),
        ("detail", [], "detail is list, not an object"),
        ("detail", {"box": {"by_iou": {"50": -1.0}}}, r"detail\.box\.by_iou\.50 is -1\.0, not a number of per cent"),
        ("detail", {"box": 3}, r"detail\.box is not numbers by name and part"),
        ("detail", {"errors": {"box": {"AP": 3.0}}}, r"detail\.errors is not numbers by name and part"),
        ("detail", {"errors": {"box": {"0.5": {"AP": 3.0}}}}, r"detail\.errors has '0\.5', which is no IoU with what"),
        ("metrics", {"AP": {"50": 3.0}}, "metrics are not numbers by name"),
        ("transfer.images_per_process", None, "transfer.images_per_process is no whole number"),
        ("detections", {"file": "", "sha256": ""}, "no name of a file beside it"),
        ("detections", {"file": "x.npz"}, r"detections\.sha256 is missing"),
        ("detections", {"file": "../x.npz", "sha256": ""}, "no name of a file beside it"),
        ("finished", "yesterday", "no ISO-8601 time in UTC"),
        ("finished", "2025-01-02T03:04:05", "no ISO-8601 time in UTC"),
        ("finished", "2025-01-02T03:04:05+02:00", "no ISO-8601 time in UTC"),
    ],
)
def test_invalid_records_are_not_written(one, tmp_path, dotted, value, problem):
    with pytest.raises(UserError, match=problem):
        record.write(tmp_path, changed(one, dotted, value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dotted", "value", "problem"),
    [
        ("device", ..., "device is missing"),
        ("schema", 7, "has schema 7"),
        ("transfer.id", "voc-frozen", "another trial: move it to in100-moco-v2/voc-frozen/"),
        ("pretrain.seed", 5, "pretrain-5_transfer-4.json"),
        ("metrics.AP", float("nan"), "metrics.AP is nan"),
        ("metrics.AP", 10**400, "metrics.AP is 1000"),
        ("seconds", 10**400, "seconds is 1000"),
    ],
)
def test_read_names_the_file_and_what_is_wrong(one, tmp_path, dotted, value, problem):
    place = record.write(tmp_path, one)
    place.write_text(json.dumps(changed(one, dotted, value)))
    with pytest.raises(UserError, match=problem) as refusal:
        record.read(place)
    assert str(place) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"[" * 200_000, b"\xff\xfe", b'{"schema": 1, "pre'])
def test_read_refuses_what_is_no_record(one, tmp_path, content):
    place = record.write(tmp_path, one)
    place.write_bytes(content)
    with pytest.raises(UserError, match="is no JSON, perhaps cut short|not a JSON object") as refusal:
        evidence.read_all(tmp_path)
    assert str(place) in str(refusal.value)


def test_read_of_an_absent_file(tmp_path):
    with pytest.raises(UserError, match="cannot read the record .*absent.json: No such file"):
        record.read(tmp_path / "absent.json")


def test_copies_in_hidden_folders_are_no_records(one, tmp_path):
    place = record.write(tmp_path, one)
    copy = place.parent / ".ipynb_checkpoints" / f"{place.stem}-checkpoint.json"
    copy.parent.mkdir()
    copy.write_bytes(place.read_bytes())
    assert [record.content(each) for each in evidence.read_all(tmp_path)] == [one]


def test_read_all_sorts_by_trial_and_earlier_roots_come_first(one, tmp_path):
    record.write(tmp_path / "a", changed(one, "transfer.seed", 10))
    record.write(tmp_path / "a", changed(one, "transfer.seed", 9))
    record.write(tmp_path / "b", changed(changed(one, "transfer.seed", 9), "commit", "other"))
    record.write(tmp_path / "b", changed(one, "pretrain.id", "a-first"))
    found = evidence.read_all(tmp_path / "a", tmp_path / "b", tmp_path / "absent")
    assert [(item["pretrain"]["id"], item["transfer"]["seed"], item["commit"]) for item in found] == [
        ("a-first", 4, "abc"),
        ("in100-moco-v2", 9, "abc"),
        ("in100-moco-v2", 9, "other"),
        ("in100-moco-v2", 10, "abc"),
    ]


def test_a_record_that_was_changed_is_refused(one, tmp_path):
    place = record.write(tmp_path, one)
    place.write_text(place.read_text().replace('"epochs"', '"epocks"', 1).replace('"AP": 5', '"AP": 6'))
    with pytest.raises(UserError, match="no valid record|has changed since it was written"):
        record.read(place)
    record.write(tmp_path, one)
    place.write_text(place.read_text().replace('"seconds": ', '"seconds": 1'))
    with pytest.raises(UserError, match=r"has changed since it was written .*: restore it, or delete it and run its"):
        record.read(place)


def test_a_record_from_before_checksums_is_taken(one, tmp_path):
    place = record.write(tmp_path / "work", one)
    place.write_text(json.dumps(one))
    assert record.read(place) == one


def test_digest_is_of_the_content():
    assert record.digest({"a": 1, "b": (2,)}) == record.digest({"b": [2], "a": 1})
    assert record.digest({"a": 1, "b": [2]}) != record.digest({"a": 1, "b": [3]})
