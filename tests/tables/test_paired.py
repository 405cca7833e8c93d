"""Statistics of paired trials, against SciPy's own and against simulation."""

import numpy as np
import pytest
from scipy import stats

from tables.statistics import paired, pairs_needed, power, prediction_interval


@pytest.mark.parametrize("n", [2, 5, 12])
def test_the_paired_t_test_is_scipys(n):
    rng = np.random.default_rng(n)
    one, other = rng.normal(1.0, 1.0, n), rng.normal(0.0, 1.0, n)
    found = paired(list(one - other))
    twin = stats.ttest_rel(one, other)
    assert found.p == pytest.approx(twin.pvalue)
    assert found.low == pytest.approx(twin.confidence_interval().low)
    assert found.high == pytest.approx(twin.confidence_interval().high)
    assert (found.mean, found.n) == (pytest.approx((one - other).mean()), n)


def test_differences_that_do_not_scatter():
    assert paired([0.5, 0.5]).p == 0
    assert paired([0.0, 0.0]).p == 1


def test_a_prediction_interval_holds_one_more_value():
    """By simulation: of 20,000 sevenths values, 99 % fall into the interval of their six."""
    draws = np.random.default_rng(0).normal(size=(20_000, 7))
    inside = [low <= last <= high for *six, last in draws for low, high in [prediction_interval(six)]]
    assert np.mean(inside) == pytest.approx(0.99, abs=0.003)


def test_power_is_how_often_the_test_finds_the_effect():
    draws = np.random.default_rng(0).normal(0.8, 1.0, (20_000, 12))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power(12, 0.8, 1.0) == pytest.approx(found, abs=0.01)


def test_without_an_effect_power_is_the_error():
    assert power(5, 0.0, 1.0) == pytest.approx(0.05)


def test_pairs_needed_are_the_fewest_of_that_power():
    n = pairs_needed(1.0, 1.5)
    assert power(n, 1.0, 1.5) >= 0.8 > power(n - 1, 1.0, 1.5)
