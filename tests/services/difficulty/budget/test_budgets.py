"""All budgets: the sum is hard, and the reference's numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import parts
from pipeline.errors import UserError
from services.difficulty.budget import _whole
from services.difficulty.budget.cures import Cures
from services.difficulty.budget.knapsack import Knapsack
from services.difficulty.state import Beliefs

NAMES = parts.names("difficulty.budget")


def states(p):
    p = np.array(p, float)
    return Beliefs(p * 10, (1 - p) * 10, p, p > 9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.9, 1.0]), min_size=1, max_size=12), st.integers(0, 7))
def test_asked_and_issued_agree_to_the_rollout(name, p, spare):
    budget = parts.load("difficulty.budget", name)
    wanted = len(p) * budget.typical
    found = budget(states(p), wanted + spare)
    assert found.sum() == wanted and (found >= 1).all() and (found <= getattr(budget, "high", budget.typical)).all()


@pytest.mark.parametrize("name", NAMES)
def test_more_prompts_than_the_budget_holds_are_refused(name):
    budget = parts.load("difficulty.budget", name)
    with pytest.raises(UserError, match="rollouts were asked for; accepted"):
        budget(states([0.5] * 3), 3 * getattr(budget, "low", budget.typical) - 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("fixed", "single_stream")])
def test_less_than_the_mean_for_each_is_shared_to_the_rollout(name):
    budget = parts.load("difficulty.budget", name)
    for total in range(3 * budget.low, 3 * budget.n):
        found = budget(states([0.1, 0.5, 1.0]), total)
        assert found.sum() == total and found.min() >= budget.low


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("fixed", "single_stream")])
def test_it_waits_until_enough_prompts_can_share(name):
    budget = parts.load("difficulty.budget", name, n=4, at_once=3)
    assert [budget.prompts(room) for room in (11, 12, 15, 16)] == [0, 3, 3, 4]


@pytest.mark.parametrize(
    ("p", "n", "counts"),
    [([0.25, 0.5, 0.75], 8, [11, 6, 7]), ([0.05, 0.5, 0.95], 8, [15, 7, 2]), ([0.05, 0.4], 4, [2, 6])],
)
def test_knapsack_spends_as_the_reference(p, n, counts):
    for solver in ("greedy", "dp"):
        assert Knapsack(n=n, solver=solver)(states(p), n * len(p)).tolist() == counts


def test_knapsack_of_eight_rollouts_and_the_released_programme():
    assert Knapsack(n=3).spend(states([0.25, 0.5, 0.75]), 8).tolist() == [3, 3, 2]
    released = Knapsack(n=4, solver="released")(states([0.05, 0.4]), 8)
    assert released.tolist() == [3, 5]
    worth = [Knapsack.value(np.array(counts), np.array([0.05, 0.4])).sum() for counts in ([2, 6], [3, 5])]
    assert worth == pytest.approx([0.140979, 0.137758], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.02, 0.98), min_size=1, max_size=6), st.integers(2, 9), st.integers(9, 20))
def test_greedy_is_as_good_as_the_programme(p, n, high):
    worth = []
    for solver in ("greedy", "dp"):
        counts = Knapsack(n=n, high=high, solver=solver)(states(p), n * len(p))
        assert counts.sum() == n * len(p)
        worth.append(Knapsack.value(counts, np.array(p)).sum())
    assert worth[0] == pytest.approx(worth[1])


def test_xrpo_s_rounds_without_the_bonus_are_one():
    beliefs = states([0.05, 0.3, 0.5, 0.9])
    plans = [parts.load("difficulty.budget", "xrpo_rounds", explore=0.0, rounds=r)(beliefs, 32) for r in (1, 2, 5)]
    assert plans[0].tolist() == plans[1].tolist() == plans[2].tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(1, 3), st.integers(0, 9), st.data())
def test_shares_become_whole_numbers_inside_their_bounds(wanted, low, room, data):
    total = data.draw(st.integers(len(wanted) * low, len(wanted) * (low + room)))
    found = _whole.rounded(np.array(wanted), total, low, low + room)
    assert found.sum() == total and found.min() >= low and found.max() <= low + room


def test_cures_shares_by_the_deviation_of_norms_that_are_all_one():
    p = np.array([0.05, 0.3, 0.5])
    assert Cures.deviation(p, [1.0], [1.0]) == pytest.approx(np.sqrt(p * (1 - p)))
    reference = np.array([Cures.deviation(0.25, [2.0], [1.0] * 3), Cures.deviation(0.5, [2.0] * 2, [1.0] * 2)])
    assert reference == pytest.approx([0.757772, 0.75], abs=1e-6)
    assert _whole.rounded(reference, 16, 2, 32).tolist() == [8, 8]
    assert Cures()(states(p), 24).tolist() == _whole.rounded(np.sqrt(p * (1 - p)), 24, 2, 32).tolist()


def test_bounds_that_leave_the_mean_out_are_refused():
    with pytest.raises(UserError, match="n is 8; accepted: from low, 2, to high, 4"):
        parts.load("difficulty.budget", "knapsack", high=4)
