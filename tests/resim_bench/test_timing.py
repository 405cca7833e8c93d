"""What a row of the benchmark says."""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from resim_bench.machine import timing


def test_both_are_measured_in_turn_after_a_round_that_does_not_count():
    order = []
    rounds = timing.in_turn(lambda: order.append("A"), lambda: order.append("B"), pairs=2)
    assert order == ["A", "B"] * 3 and len(rounds) == 2
    assert all(ours >= 0 and reference >= 0 for ours, reference in rounds)


def test_rounds_that_warm_up_do_not_count(monkeypatch):
    times = iter([9.0, 9.0, 8.0, 8.0, 1.0, 2.0])
    monkeypatch.setattr(timing, "seconds", lambda work: next(times))
    assert timing.in_turn(None, None, pairs=1, warm_up=2) == [(1.0, 2.0)]


def test_a_row_has_medians_rates_and_the_ratio_of_each_pair():
    rounds = [(1.0, 2.0), (2.0, 8.0), (4.0, 4.0)]
    row = timing.compare("x", rounds, amount=8, unit="pairs/s", at_least=3)
    assert (row.ours, row.reference) == (8 / 2, 8 / 4)
    assert (row.ratio, row.low, row.high) == (2.0, 1.0, 4.0)
    assert row.met is False and timing.compare("x", rounds, at_least=2).met is True
    cost = timing.compare("x", rounds, at_most=0.5)
    assert (cost.ratio, cost.low, cost.high, cost.met) == (0.5, 0.25, 1.0, True)
    assert timing.compare("x", rounds).met is None


def test_a_line_says_whether_the_goal_is_reached():
    row = timing.compare("two views", [(1.0, 4.0), (1.0, 5.0)], amount=300, unit="pairs/s", at_least=3)
    line = timing.line(row)
    assert " ".join(line.split()) == "two views 300 66.7 pairs/s 4.50 (4.00 to 5.00) ≥ 3 reached"
    assert timing.line(row._replace(ratio=2.0)).endswith("≥ 3 missed")
    assert " ".join(timing.line(timing.compare("m", [(10.0, 90.0)], unit="MB")).split()) == "m 10 90 MB 9.00"
    assert timing.HEADER.index("ratio") == line.index("4.50")
    assert len(timing.line(row._replace(what="x" * timing.WIDTH, unit="images/s", at_most=1.15, at_least=None))) <= 120


def test_extra_memory_counts_what_is_alive_at_a_time():
    x = torch.ones(1000, 250)  # a megabyte

    def chain():
        return x.exp().exp().exp()

    def all_kept():
        return [x.exp(), x.exp(), x.exp()]

    assert timing.extra_memory(chain) == pytest.approx(2e6, rel=0.05)
    assert timing.extra_memory(all_kept) == pytest.approx(3e6, rel=0.05)


def sleeper(duration):
    return lambda: time.sleep(duration)


def failing():
    raise RuntimeError("no work")


def test_work_is_done_in_a_process_of_its_own():
    with timing.apart(sleeper, 0.2) as work:
        work()
        assert 0.2 <= timing.seconds(work) < 0.6


def interrupting():
    return lambda: os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_that_process_without_a_word(capfd):
    with pytest.raises(BrokenProcessPool), timing.apart(interrupting) as work:
        work()
    assert capfd.readouterr() == ("", "")


def test_work_that_fails_is_noticed():
    with timing.apart(failing) as work, pytest.raises(RuntimeError, match="no work"):
        work()
