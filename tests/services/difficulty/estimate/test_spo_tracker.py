"""SPO's tracker: the authors' numbers, and verdict and movement in either order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.difficulty.estimate.spo_tracker import SpoTracker
from services.difficulty.state import Observation, Stat

TRACKER = SpoTracker()


def believed(stat):
    alpha_P, beta_P = TRACKER.pseudo_counts(np.array([stat.values]), np.array([stat.decayed_step]), step=9)
    return alpha_P[0], beta_P[0]


def test_three_of_eight_offline_is_3_11_and_4_89():
    assert TRACKER.offline(3, 8).values[:2] == pytest.approx((28 / 9, 44 / 9))


def test_the_worked_visit_gives_the_papers_counts_and_value():
    stat = TRACKER.shifted(TRACKER(TRACKER.offline(3, 8), Observation(1.0), 1), 0.005, 1)
    assert stat.values[:2] == pytest.approx((3.936498, 4.614497), abs=1e-6)
    alpha, beta = believed(stat)
    assert alpha / (alpha + beta) == pytest.approx(0.460356, abs=1e-6)


@pytest.mark.parametrize(
    ("nats", "rho"), [(0, 0.96), (0.005, 0.943874), (0.0099, 0.891929), (0.02, 0.875), (1e9, 0.875)]
)
def test_movement_forgets_between_the_bounds(nats, rho):
    assert TRACKER.rho(nats) == pytest.approx(rho, abs=1e-6)


@given(st.floats(0, 1), st.floats(0, 0.1))
def test_counts_are_the_moving_average_also_for_fractions(accuracy, nats):
    before = TRACKER.offline(3, 8)
    n, v = sum(before.values[:2]), before.values[0] / sum(before.values[:2])
    alpha, beta = believed(TRACKER.shifted(TRACKER(before, Observation(accuracy), 1), nats, 1))
    assert alpha / (alpha + beta) == pytest.approx(v + (accuracy - v) / (TRACKER.rho(nats) * n + 1))


def test_movement_before_its_verdict_gives_the_same_bits_as_after_it():
    before = TRACKER.offline(3, 8)
    late = TRACKER.shifted(TRACKER(before, Observation(1.0), 1), 0.005, 1)
    early = TRACKER(TRACKER.shifted(before, 0.005, 1), Observation(1.0), 1)
    assert late == early


def test_while_it_waits_an_outcome_is_believed_as_a_first_visit():
    stat = TRACKER(Stat((2.0, 2.0, 0.0, 0.0, 0.0)), Observation(1.0), 1)
    assert believed(stat) == pytest.approx((0.96 * 2 + 1, 0.96 * 2))


def test_an_outcome_whose_movement_never_comes_is_settled_at_the_next_visit():
    stat = TRACKER(Stat((2.0, 2.0, 0.0, 0.0, 0.0)), Observation(1.0), 1)
    stat = TRACKER.shifted(TRACKER(stat, Observation(0.0), 4), 0.02, 4)
    assert stat.values[:2] == pytest.approx((0.875 * (0.96 * 2 + 1), 0.875 * (0.96 * 2) + 1))


def test_outcomes_of_one_step_share_one_movement():
    stat = TRACKER.initial()
    for accuracy in (1.0, 0.0, 1.0):
        stat = TRACKER(stat, Observation(accuracy), 1)
    assert TRACKER.shifted(stat, 0.0, 1).values[:2] == pytest.approx((0.96 * 0.5 + 2, 0.96 * 0.5 + 1))


def test_a_movement_before_the_outcomes_of_one_step_goes_to_the_first_of_them_alone():
    late = early = TRACKER.initial()
    early = TRACKER.shifted(early, 0.005, 1)
    for accuracy in (1.0, 0.0, 1.0):
        late, early = (TRACKER(stat, Observation(accuracy), 1) for stat in (late, early))
    assert believed(TRACKER.shifted(late, 0.005, 1)) == pytest.approx((2.471937, 1.471937), abs=1e-6)
    assert believed(early) == pytest.approx((0.96 * 1.471937 + 1, 0.96 * 0.471937 + 1), abs=1e-6)


def test_equal_bounds_are_the_constant_form():
    assert SpoTracker(rho_min=0.875, rho_max=0.875).rho(0.0) == 0.875


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="rho_min is 0.97; accepted: up to rho_max, 0.96"):
        SpoTracker(rho_min=0.97)
