"""Kept records: folded and unfolded without a loss, never changed, and what is wrong with them in a sentence."""

import json
from collections import Counter

import pytest

import tables
from resim_bench import evidence, record
from resim_bench.errors import UserError
from tests.resim_bench.test_record import changed, one  # noqa: F401 (a fixture)

# sha256 of the records that were a file each until they were folded, in the order of `evidence.read_all`: 126
# (52fa09c4…) without the 12 of photos-coco, which went with its rows.
FOLDED_AT_FIRST = "ea2288ab650c3a0b4bbfe5c18abe0119afc03e31053534c6038ecb69cb6ec4cd"


def by_study(entry):
    return entry["pretrain"]["id"]


def test_what_was_folded_comes_back():
    """Whatever was kept since: the first lines of the first files unfold to what stood there before."""
    first = [entry for entry in evidence.read(tables.RECORDS) if entry["finished"] < "2026-11-25"]
    assert len(first) == 114
    assert record.digest(sorted(first, key=record.key)) == FOLDED_AT_FIRST


def test_the_kept_evidence_can_be_read():
    lines = sum(len(file.read_text().splitlines()) for file in tables.RECORDS.rglob("*") if file.is_file())
    assert lines < 5_000
    editions = [tables.paper.load_protocols(), *(study.pinned for study in tables.load_studies().values())]
    pinned = {digest for edition in editions for side in edition.values() for digest in side.values()}
    names = {file.stem for file in (tables.RECORDS / "protocols").iterdir()}
    assert len(names & pinned) >= 20, "a pinned digest names a file that one can open"
    stand = {file.stem: len(file.read_text().splitlines()) for file in tables.RECORDS.glob("*.jsonl")}
    assert Counter(map(tables.file_of, evidence.read(tables.RECORDS))) == stand, "each where it would be kept today"


def test_keep_folds_what_is_missing_and_only_that(one, tmp_path):  # noqa: F811
    work, kept = tmp_path / "work", tmp_path / "kept"
    assert evidence.keep(work, kept, by_study) == []
    record.write(work, one)
    assert evidence.keep(work, kept, by_study) == [("in100-moco-v2", "voc-full", 3, 4)]
    assert evidence.read(kept) == [record.read(record.path(work, *record.key(one)))]
    file = kept / "in100-moco-v2.jsonl"
    before = file.read_bytes()
    record.write(work, changed(one, "transfer.seed", 2))
    assert [trial[3] for trial in evidence.keep(work, kept, by_study)] == [2]
    assert file.read_bytes().startswith(before) and file.read_bytes().count(b"\n") == 2, "behind the others"
    assert evidence.keep(work, kept, by_study) == [] and len(evidence.read_all(kept)) == 2
    file.write_bytes(file.read_bytes().rstrip(b"\n"))  # as some editors leave it
    record.write(work, changed(one, "transfer.seed", 5))
    assert evidence.keep(work, kept, by_study) and len(evidence.read(kept)) == 3, "a line each"
    assert {path.name for path in kept.iterdir()} == {"in100-moco-v2.jsonl", "protocols", "facts"}
    assert len(list((kept / "protocols").iterdir())) == 1, "both sides and both trials have the same"


def test_a_recipe_may_be_called_as_a_folder_of_values(one, tmp_path):  # noqa: F811
    record.write(tmp_path, changed(one, "pretrain.id", "facts"))
    assert [entry["pretrain"]["id"] for entry in evidence.read_all(tmp_path)] == ["facts"]


def test_only_the_trials_that_are_asked_for(one, tmp_path):  # noqa: F811
    record.write(tmp_path / "work", one)
    record.write(tmp_path / "work", changed(one, "transfer.seed", 2))
    wanted = {("in100-moco-v2", "voc-full", 3, 2)}
    assert evidence.keep(tmp_path / "work", tmp_path / "kept", by_study, wanted) == list(wanted)


def test_a_record_from_before_checksums_is_the_same_with_one(one, tmp_path):  # noqa: F811
    place = record.write(tmp_path / "work", one)
    evidence.keep(tmp_path / "work", tmp_path / "kept", by_study)
    place.write_text(json.dumps(one))
    assert evidence.keep(tmp_path / "work", tmp_path / "kept", by_study) == []


def test_evidence_is_never_overwritten(one, tmp_path):  # noqa: F811
    work, kept = tmp_path / "work", tmp_path / "kept"
    record.write(work, one)
    evidence.keep(work, kept, by_study)
    record.write(work, changed(one, "metrics.AP", 60.0))
    record.write(work, changed(one, "transfer.seed", 0))
    with pytest.raises(UserError, match="already records the trial in100-moco-v2/voc-full/.* with another content"):
        evidence.keep(work, kept, by_study)
    assert [record.content(entry) for entry in evidence.read_all(kept)] == [one], "nothing is kept"


def _cut(file, value):
    file.write_text(file.read_text()[:-30])


def _change(file, value):
    file.write_text(file.read_text().replace('"AP": 54', '"AP": 55'))


def _twice(file, value):
    file.write_text(2 * file.read_text())


def _no_record(file, value):
    file.write_text("[]\n")


def _no_value(file, value):
    value.unlink()


def _other_value(file, value):
    value.write_text('{"batch": 17}')


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_cut, "line 1 of .*in100-moco-v2.jsonl is no record .*: restore it, or delete the line"),
        (_change, "line 1 of .*in100-moco-v2.jsonl has changed since it was written"),
        (_twice, "line 2 of .* records a trial that line 1 of .* does, too: delete one of them"),
        (_no_record, "line 1 of .* is no record .it is no object with pretrain and transfer"),
        (_no_value, "line 1 of .* needs .*protocols/.*.json, which cannot be read .*: restore it"),
        (_other_value, "protocols/.*.json has changed since it was written"),
    ],
)
def test_what_is_wrong_is_said(one, tmp_path, spoil, sentence):  # noqa: F811
    record.write(tmp_path / "work", one)
    evidence.keep(tmp_path / "work", tmp_path / "kept", by_study)
    (value,) = (tmp_path / "kept" / "protocols").iterdir()
    spoil(tmp_path / "kept" / "in100-moco-v2.jsonl", value)
    with pytest.raises(UserError, match=sentence):
        evidence.read_all(tmp_path / "kept")
