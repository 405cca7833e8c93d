import importlib

import pytest

DATA = "0" * 64


@pytest.fixture(autouse=True)
def no_pinned_protocols(monkeypatch):
    """Fixture records have a protocol of their own; a test that is about digests pins what it needs."""
    pinned = {"pretrain": {}, "transfer": {}}
    module = importlib.import_module("tables.collect")  # `tables.collect` is the function
    monkeypatch.setattr(module, "load_protocols", lambda: pinned)
    return pinned


@pytest.fixture
def make_record():
    """Builds a valid record; every argument after the ids is optional, `metrics` stands for the three of VOC."""

    def build(pretrain, transfer, ap=50.0, ap50=75.0, ap75=55.0, seeds=(0, 0), deviations=None, metrics=None):
        def side(name, seed, differing):
            return {
                "id": name,
                "seed": seed,
                "protocol": {"batch": 16},
                "overrides": {},
                "deviations": differing,
                "data": DATA,
            }

        return {
            "schema": 1,
            "pretrain": side(pretrain, seeds[0], deviations or {}) | {"epochs": 500, "backbone_sha256": DATA},
            "transfer": side(transfer, seeds[1], {}),
            "metrics": metrics or {"AP": ap, "AP50": ap50, "AP75": ap75},
            "versions": {"torch": "2.11.0"},
            "commit": "abc",
            "device": "2 x cpu",
            "seconds": 12.5,
            "finished": "2025-01-02T03:04:05+00:00",
        }

    return build


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
