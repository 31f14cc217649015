"""What every estimate owes: one prompt alone and among many give the same bits, and what a window forgets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import parts
from pipeline.errors import UserError
from services.difficulty.estimate.bots import Bots
from services.difficulty.estimate.cures_bayes import CuresBayes
from services.difficulty.estimate.sliding_window import SlidingWindow
from services.difficulty.state import Observation, Stat

visits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12)


def fold(estimate, seen):
    stat, step = estimate.initial(), 0
    for accuracy, wait, lag in seen:
        step += wait
        stat = estimate(stat, Observation(accuracy, lag), step)
    return stat


@pytest.mark.parametrize("name", parts.names("difficulty.estimate"))
@settings(max_examples=20, deadline=None)
@given(st.lists(visits, min_size=1, max_size=12))
def test_many_prompts_at_once_give_the_bits_of_each_alone(name, histories):
    estimate = parts.load("difficulty.estimate", name)
    stats = [fold(estimate, seen) for seen in histories]
    values, decayed = np.array([s.values for s in stats]), np.array([s.decayed_step for s in stats])
    size = len(stats)
    together = estimate.observe(values, decayed, np.full(size, 0.25), np.full(size, 1), np.full(size, 40))
    alone = [estimate(stat, Observation(0.25, 1), 40).values for stat in stats]
    assert together.tolist() == [list(each) for each in alone]
    alpha_P, beta_P = estimate.pseudo_counts(values, decayed, 41)
    assert (alpha_P >= 0).all() and (beta_P >= 0).all() and (alpha_P + beta_P > 0).all()


@pytest.mark.parametrize("name", [name for name in parts.names("difficulty.estimate") if name != "sliding_window"])
def test_with_a_discount_an_outcome_that_lags_says_less_and_without_one_as_much(name):
    def believed(lag, **knobs):
        estimate = parts.load("difficulty.estimate", name, **knobs)
        stat = fold(estimate, [(1.0, 1, lag)])
        alpha_P, beta_P = estimate.pseudo_counts(np.array([stat.values]), np.array([1]), 1)
        return float(alpha_P[0] / (alpha_P[0] + beta_P[0]))

    assert believed(0) == believed(0, lag_discount=0.5) == believed(3) > believed(1, lag_discount=0.5)
    assert believed(1, lag_discount=0.5) > believed(3, lag_discount=0.5) > believed(99, lag_discount=0.5) >= 0.5
    with pytest.raises(UserError, match="lag_discount"):
        parts.load("difficulty.estimate", name, lag_discount=0.0)


def test_left_alone_bots_drifts_to_one_half():
    bots = Bots()
    alpha_P, beta_P = bots.pseudo_counts(np.array([[50.0, 1.0]]), np.array([0]), 200)
    assert (alpha_P[0], beta_P[0]) == (pytest.approx(9.0), pytest.approx(9.0))
    by_hand = 50.0
    for _ in range(3):
        by_hand = 0.8 * by_hand + 0.2 + 0.2 * 0.5 * 16
    assert bots.pseudo_counts(np.array([[50.0, 1.0]]), np.array([0]), 3)[0][0] == pytest.approx(by_hand)


def test_cures_begins_anew_in_each_period():
    cures = CuresBayes(reset_every=10)
    stat = fold(cures, [(1, 9, 0)] * 1)
    assert cures(stat, Observation(1.0), 9).values == (2.0, 0.0)
    assert cures(stat, Observation(0.0), 10).values == (0.0, 1.0)


def test_a_window_holds_its_newest_outcomes_only():
    window = SlidingWindow(size=4)
    stat = fold(window, [(1, 1, 0)] * 9 + [(0, 1, 0)] * 3)
    assert stat == Stat((0b1000, 4.0), 12)
    assert SlidingWindow(size=52)(Stat((float(2**52 - 1), 52.0)), Observation(0.0), 1).values[0] == 2**52 - 2
