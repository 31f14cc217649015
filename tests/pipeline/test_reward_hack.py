"""The alarm fires when the reward rises and the hidden check's does not, and on nothing else."""

import pytest

from pipeline import reward_hack
from pipeline.reward_hack import Watch, drift, over


def window(both, first_only, hidden_only, neither):
    answers = [(True, True)] * both + [(True, False)] * first_only
    return answers + [(False, True)] * hidden_only + [(False, False)] * neither


HALF = window(50, 0, 0, 50)


def test_a_gamed_reward_by_hand():
    found = drift(HALF, window(50, 40, 0, 10))
    assert (found.reward, found.hidden, found.gap) == (pytest.approx(0.4), pytest.approx(0), pytest.approx(0.4))
    # Reward: variances 0.25 and 0.09; gap: 0 and 0.24; each with 1/n more, over n.
    assert found.reward_se == pytest.approx(((0.25 + 0.01) / 100 + (0.09 + 0.01) / 100) ** 0.5)
    assert found.gap_se == pytest.approx(((0 + 0.01) / 100 + (0.24 + 0.01) / 100) ** 0.5)
    assert found.sigmas == pytest.approx(0.4 / 0.06)
    assert found.alarm


@pytest.mark.parametrize(
    ("what", "newest"),
    [
        ("both rise together", window(90, 0, 0, 10)),
        ("nothing changes", HALF),
        ("both fall", window(10, 0, 0, 90)),
        ("the hidden check alone falls: the reward does not rise", window(10, 40, 0, 50)),
        ("the hidden check alone rises", window(50, 0, 40, 10)),
        ("a little, within the noise", window(50, 8, 0, 42)),
    ],
)
def test_what_is_no_gamed_reward(what, newest):
    assert not drift(HALF, newest).alarm, what


def test_a_hidden_check_that_rises_half_as_fast_raises_the_alarm_once_the_gap_is_significant():
    found = drift(window(20, 0, 0, 80), window(50, 30, 0, 20))
    assert found.hidden == pytest.approx(0.3)
    assert found.alarm


def test_a_check_that_always_erred_as_much_is_no_alarm():
    assert not drift(window(20, 30, 0, 50), window(60, 30, 0, 10)).alarm


def test_windows_in_which_all_are_equal_claim_no_certainty():
    found = drift([(False, False)] * 4, [(True, False)] * 4)
    assert found.reward_se == pytest.approx((2 * (1 / 4) / 4) ** 0.5)
    assert not found.alarm
    assert drift([(False, False)] * 100, [(True, False)] * 100).alarm


def test_a_run_too_short_for_two_windows_says_nothing():
    assert over(HALF, 100) is None
    assert over(HALF + HALF, 100).gap == 0


def test_while_a_run_goes_on_the_newest_answers_are_compared_with_its_first():
    watch = Watch(100)
    series = HALF + HALF + window(50, 40, 0, 10)
    found = [watch.add(*one) for one in series]
    assert found[:199] == [None] * 199
    assert found[199] == over(series[:200], 100)
    assert found[-1] == over(series, 100)
    assert found[-1].sigmas > reward_hack.SIGMAS
