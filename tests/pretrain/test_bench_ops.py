"""What the benchmark of the operators compares is equal (it refuses to measure otherwise), and runs."""

import pytest
import torch

from pretrain.bench import ops


@pytest.mark.parametrize("what", ops.POOLING)
def test_pooling(what):
    map_stride, window, stride, _, side = ops.POOLING[what]
    row = ops.pooling_row(what, map_stride, window, stride, 4, side, pairs=1)
    assert what in row.what and row.ratio > 1


def test_dense_loss(monkeypatch):
    torch.manual_seed(0)
    memory, time = ops.dense_rows("tiny", 8, (8, 900, 32), pairs=1)
    assert memory.unit == "MB" and memory.ratio > 1 and time.unit == "s"
    wrong = ops.materialised

    monkeypatch.setattr(ops, "materialised", lambda *args: 1.01 * wrong(*args))
    with pytest.raises(AssertionError):
        list(ops.dense_rows("tiny", 8, (8, 900, 32), pairs=1))
