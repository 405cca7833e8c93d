"""The records that the bench of growth makes are read as trials of their own."""

from resim_bench import evidence, record
from tables import RECORDS
from tables.bench import over_records


def test_records_over_and_over_are_trials_of_their_own(tmp_path):
    kept = evidence.read(RECORDS)
    frame = over_records(tmp_path, 2 * len(kept) + 5)()
    found = evidence.read(tmp_path / f"records-{2 * len(kept) + 5}")
    assert len({record.key(entry) for entry in found}) == len(found) == 2 * len(kept) + 5
    assert found[: len(kept)] == [record.content(entry) for entry in kept]
    assert frame.trials.max() > 0
