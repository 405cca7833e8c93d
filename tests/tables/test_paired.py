"""Statistics of paired trials, against SciPy's own and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from tables.statistics import paired, prediction_interval


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


def test_ten_pairs_find_what_the_plan_says():
    """docs/findings.md: pilots scatter by 3.0 AP; did pairing gain nothing, 4.3 AP would be found with 80 % power."""
    draws = np.random.default_rng(0).normal(4.3, 3.0 * math.sqrt(2), (4_000, 10))
    assert np.mean([paired(differences).p < 0.05 for differences in draws]) == pytest.approx(0.8, abs=0.02)
