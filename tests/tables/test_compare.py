import math

import pytest

from tables import compare
from tables.paper import Noise, load_paper
from tables.statistics import holm

NOISE = {
    metric: Noise(of["std"][metric], bound)
    for of in load_paper("resim").noise.values()
    for metric, bound in of["bound"].items()
}


def test_a_match_can_be_reached_with_one_trial_a_side():
    for metric, noise in NOISE.items():
        assert compare.Z_95 * compare.standard_error(noise, noise.std) < noise.bound, metric
    assert len(NOISE) == 9


def test_one_trial_has_the_prior_as_its_error():
    one = compare.summarise(NOISE["AP75"], [[50.0]])
    assert one[:1] + one[2:] == (50.0, 0.4, 1, 1)
    assert math.isnan(one.std)
    assert compare.summarise(NOISE["AP"], []).trials == 0


def test_trials_of_one_pretraining_narrow_the_error_but_never_below_the_prior():
    four = compare.summarise(NOISE["AP"], [[49.9, 50.0, 50.1, 50.0]])
    assert four.error == pytest.approx(0.2 / 2)
    assert four.std == pytest.approx(math.sqrt(0.02 / 3))
    wide = compare.summarise(NOISE["AP"], [[48.0, 52.0]])
    assert wide.error == pytest.approx(wide.std / math.sqrt(2)) == pytest.approx(2.0)


def test_pretrainings_are_the_unit_where_there_are_several():
    two = compare.summarise(NOISE["AP"], [[50.0, 50.2, 50.1, 50.1], [54.1]])
    assert two.mean == pytest.approx(52.1), "of the means, however many transfers each has"
    assert two.std == pytest.approx(4.0 / math.sqrt(2))
    assert two.error == pytest.approx(2.0)
    assert (two.trials, two.pretrainings) == (5, 2)
    alike = compare.summarise(NOISE["AP"], [[50.0], [50.0]])
    assert alike.error == pytest.approx(0.2 / math.sqrt(2)), "never below the prior"


def test_the_papers_own_trials_narrow_its_side():
    assert compare.standard_error(NOISE["AP"], 0.2) == pytest.approx(math.sqrt(0.04 + 0.04 + 0.0025 / 3))
    assert compare.standard_error(NOISE["AP"], 0.2, 5) == pytest.approx(math.sqrt(0.04 + 0.008 + 0.0025 / 3))


@pytest.mark.parametrize("metric", NOISE)
def test_verdicts_just_inside_and_just_outside(metric):
    noise, error = NOISE[metric], 0.1
    inside, outside = noise.bound - 1.96 * error - 1e-6, noise.bound + 1.96 * error + 1e-6
    for factor, beyond in ((1, compare.ABOVE), (-1, compare.BELOW)):
        assert compare.verdict(noise, 0.0, error) == compare.MATCH
        assert compare.verdict(noise, factor * inside, error) == compare.MATCH
        assert compare.verdict(noise, factor * (inside + 1e-5), error) == compare.INCONCLUSIVE
        assert compare.verdict(noise, factor * (outside - 1e-5), error) == compare.INCONCLUSIVE
        assert compare.verdict(noise, factor * outside, error) == beyond


def test_p_agrees_with_the_interval():
    assert compare.p_below(NOISE["AP"], -1.0, 0.3) == pytest.approx(0.5)
    assert compare.p_below(NOISE["AP"], -1.0 - 1.96 * 0.3, 0.3) == pytest.approx(0.025, abs=1e-5)
    assert compare.p_below(NOISE["box_AP"], -0.8 - 1.96 * 0.3, 0.3) == pytest.approx(0.025, abs=1e-5)
    assert compare.p_below(NOISE["AP"], 5.0, 0.3) > 0.999


def test_holm_by_hand():
    # sorted .004 .006 .02 .03 against .05 / 4, 3, 2, 1 = .0125 .0167 .025 .05: all fall
    assert holm([0.03, 0.004, 0.02, 0.006], alpha=0.05) == [True] * 4
    # .01 ≤ .0125 falls; .02 > .0167 stays, and so does .024, though it is below .025
    assert holm([0.02, 0.01, 0.024, 0.9], alpha=0.05) == [False, True, False, False]
    # a single p just below and just above
    assert holm([0.0249]) == [True]
    assert holm([0.0251]) == [False]
    assert holm([0.02, 0.9]) == [False, False], "alone it would fall"
    assert holm([math.nan, 0.01]) == [False, True] and holm([math.nan]) == [False], "what cannot be tested stands"
    assert holm([math.nan, 0.024]) == [False, False], "and counts among them"
    assert holm([]) == []


def test_sign_needs_more_than_noise():
    assert [compare.sign(difference, 0.1) for difference in (0.2, 0.19, 0.0, -0.19, -0.2)] == [1, 0, 0, 0, -1]
    assert [compare.sign(difference, 0.0) for difference in (0.1, 0.0, -0.1)] == [1, 0, -1]
