"""What a row of the benchmark says."""

import math
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
    line = row.line()
    assert " ".join(line.split()) == "two views 300 66.7 pairs/s 4.50 (4.00 to 5.00) ≥ 3 reached"
    assert row._replace(ratio=2.0).line().endswith("≥ 3 missed")
    assert " ".join(timing.compare("m", [(10.0, 90.0)], unit="MB").line().split()) == "m 10 90 MB 9.00"
    assert row.header.index("ratio") == line.index("4.50")
    assert len(row._replace(what="x" * timing.WIDTH, unit="images/s", at_most=1.15, at_least=None).line()) <= 120


@pytest.mark.parametrize("power", [-0.5, 0, 1, 1.5, 2, 3])
def test_the_exponent_of_a_known_power(power):
    sizes = [16, 64, 100, 256, 1_281_167]
    assert timing.exponent(sizes, [3e-7 * n**power for n in sizes]) == pytest.approx(power, abs=1e-9)


def test_the_exponent_of_a_sort_is_within_the_slack_of_one():
    sizes = [10_000, 100_000, 1_000_000]
    assert 1 < timing.exponent(sizes, [n * math.log(n) for n in sizes]) < 1 + timing.SLACK


def test_growth_is_that_of_the_least_of_the_rounds(monkeypatch):
    """Of 10, 40 and 160 images: a round that does not count, and two of which each was slow once."""
    made, times = [], iter([9.0, 9.0, 9.0, 1.0, 7.0, 16.0, 2.0, 8.0, 32.0])
    monkeypatch.setattr(timing, "seconds", lambda work, clock: next(times))
    row = timing.grow("a loss", made.append, [10, 40, 160], "images", expected=1, rounds=2)
    assert made == [10, 40, 160] and row.sizes == (10, 40, 160) and row.seconds == (1.0, 7.0, 16.0)
    assert row.exponent == pytest.approx(1) and row.high == pytest.approx(math.log(7, 4))
    assert row.at_most == 1 + timing.SLACK and row.met and not row._replace(exponent=1.2).met
    line = row.line()
    assert " ".join(line.split()) == "a loss, 10 to 160 images 1 16 s 1.00 (0.60 to 1.40) ≤ 1.15 reached"
    assert row.header.index("exponent") == line.index("1.00")


def test_a_row_that_is_left_out_says_why():
    row = timing.LeftOut("a peer's step", "it is not installed")
    assert row.line().split("  ")[0] == "a peer's step" and row.line().endswith(" left out: it is not installed")


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
