"""A peer's step does what ours does, and its row is there where the peer is."""

import contextlib
import importlib.util
import sys

import pytest

from pretrain.bench import step
from tests.pretrain.test_bench_step import TINY
from tests.references import lightly as stand_in

PEERS = "pretrain.bench.peers"
NAMES = ("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.models.utils")


@pytest.fixture
def lightly(monkeypatch):
    """The installed one, or the reference in its place."""
    monkeypatch.delitem(sys.modules, PEERS, raising=False)
    if not importlib.util.find_spec("lightly"):
        for name in NAMES:
            monkeypatch.setitem(sys.modules, name, stand_in)


def test_lightly_trains_as_ours_does(lightly):
    """In groups as large as the batch, as its batch norm is, with a queue that a step fills and keys that follow."""
    from pretrain.bench.peers import lightly_step

    options = TINY | {"model.bn_group": 8, "model.queue": 8, "model.momentum": 0.5, "optimizer.lr": 0.03}
    ours, peer = step.suite_step(step.MOCO, options), lightly_step(step.MOCO, options)
    losses = [(ours()["loss_instance"].item(), peer().item()) for _ in range(3)]
    assert losses == [(pytest.approx(loss, rel=1e-3), loss) for _, loss in losses]
    assert len({round(loss, 2) for _, loss in losses}) == 3


@pytest.fixture
def unmeasured(monkeypatch):
    """Every pair of steps takes one and two seconds; what `rows` starts apart."""
    started = []

    @contextlib.contextmanager
    def apart(make, *args):
        yield started.append(make.__name__)

    monkeypatch.setattr(step, "apart", apart)
    monkeypatch.setattr(step, "in_turn", lambda *args, **options: [(1.0, 2.0)])
    return started


def test_a_row_compares_with_lightly(lightly, unmeasured):
    *_, row = step.rows()
    assert unmeasured[-2:] == ["suite_step", "lightly_step"]
    assert "against lightly" in row.what and (row.ours, row.reference, row.met) == (16, 8, True)


def test_without_lightly_the_row_is_left_out_and_says_why(monkeypatch, unmeasured):
    monkeypatch.delitem(sys.modules, PEERS, raising=False)
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    *others, row = step.rows()
    assert len(others) == 5 and all(other.ratio for other in others)
    assert (
        "against lightly" in row.line() and "lightly" in row.why and row.line().endswith(": pip install lightly==1.6.0")
    )
    assert "lightly_step" not in unmeasured
