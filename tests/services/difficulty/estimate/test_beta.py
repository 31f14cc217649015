"""The Beta posterior: worked numbers, and folds that give the same bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import parts
from pipeline.errors import UserError
from services.difficulty.estimate.beta import Beta
from services.difficulty.state import Observation, Stat

unit = st.floats(0, 1)
visits = st.lists(st.tuples(unit, st.integers(0, 5), st.integers(0, 3)), max_size=30)


def fold(beta, outcomes, stat=None):
    stat, step = stat or beta.initial(), 0
    for accuracy, wait, lag in outcomes:
        step += wait
        stat = beta(stat, Observation(accuracy, lag), step)
    return stat


def test_without_decay_it_counts():
    beta = Beta(global_decay=1, local_decay=1)
    assert fold(beta, [(1, 1, 0), (1, 1, 0), (0, 1, 0)]).values == (3.0, 2.0)


def test_one_step_of_global_decay_moves_three_and_three_to_2_98():
    alpha_P, beta_P = Beta().pseudo_counts(np.array([[3.0, 3.0]]), np.array([0]), step=1)
    assert (alpha_P[0], beta_P[0]) == pytest.approx((2.98, 2.98))


def test_decay_goes_towards_the_prior_and_not_below_it():
    beta = Beta(prior_alpha=2, prior_beta=5)
    alpha_P, beta_P = beta.pseudo_counts(np.array([[9.0, 7.0]]), np.array([0]), step=100_000)
    assert (alpha_P[0], beta_P[0]) == (2.0, 5.0)


def test_outcomes_of_one_step_decay_each_other_once():
    beta = Beta(global_decay=1, local_decay=0.5)
    first = beta(Stat((5.0, 1.0), 0), Observation(1.0), step=1)
    assert first.values == (4.0, 1.0)
    assert beta(first, Observation(1.0), step=1).values == (5.0, 1.0)


def test_an_old_outcome_counts_less():
    assert Beta(lag_discount=0.5)(Beta().initial(), Observation(1.0, lag=2), step=0).values == (1.25, 1.0)


def test_a_part_of_an_answer_counts_on_both_sides():
    assert Beta()(Beta().initial(), Observation(0.25), step=0).values == (1.25, 1.75)


def test_a_step_before_the_last_decay_decays_nothing():
    later = Beta()(Stat((4.0, 2.0), 7), Observation(1.0), step=5)
    assert later == Stat((5.0, 2.0), 7)


@given(visits)
def test_refolding_gives_the_same_bits_from_any_prefix(outcomes):
    beta = Beta(lag_discount=0.9)
    whole = fold(beta, outcomes)
    stat, step = beta.initial(), 0
    for accuracy, wait, lag in outcomes:
        step += wait
        stat = beta(Stat(tuple(stat.values), stat.decayed_step), Observation(accuracy, lag), step)
    assert stat == whole


@given(st.lists(st.tuples(unit, unit, st.integers(0, 40)), min_size=1, max_size=40), st.integers(0, 60))
def test_one_prompt_alone_is_believed_with_the_same_bits_as_among_many(rows, step):
    values = np.array([(1 + 50 * a, 1 + 50 * b) for a, b, _ in rows])
    decayed = np.array([d for _, _, d in rows])
    together = np.array(Beta().pseudo_counts(values, decayed, step))
    alone = [Beta().pseudo_counts(values[i : i + 1], decayed[i : i + 1], step) for i in range(len(rows))]
    assert (together == np.array(alone)[:, :, 0].T).all()


@pytest.mark.parametrize("knob", [{"global_decay": 0}, {"local_decay": 1.5}, {"prior_alpha": 0}, {"lag_discount": -1}])
def test_a_knob_out_of_range_is_refused(knob):
    with pytest.raises(UserError, match="accepted"):
        parts.load("difficulty.estimate", "beta", **knob)


def test_its_file_says_that_the_decay_is_a_guess():
    assert Beta.confidence == "guess"
