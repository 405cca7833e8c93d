import importlib

import pytest


@pytest.fixture(autouse=True)
def no_pinned_protocols(monkeypatch):
    """Fixture records have a protocol of their own; a test that is about digests pins what it needs."""
    pinned = {"pretrain": {}, "transfer": {}}
    module = importlib.import_module("tables.collect")  # `tables.collect` is the function
    monkeypatch.setattr(module, "load_protocols", lambda: pinned)
    return pinned


@pytest.fixture
def at_the_paper(make_record):
    """A record of every experiment of the tables, with the reported numbers moved by `offset` per cent."""
    import tables

    def build(offset=0.0):
        records = {}
        for table in tables.load_tables().values():
            for row in table.rows:
                if row.pretrain and (row.pretrain, row.transfer) not in records:
                    metrics = {metric: row.reported.get(metric, 10.0) + offset for metric in table.metrics}
                    key = row.pretrain, row.transfer
                    records[key] = make_record(*key, metrics=metrics)
        return list(records.values())

    return build
