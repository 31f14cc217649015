"""The fixed budget: asked and issued agree to the rollout."""

import numpy as np
import pytest

from pipeline.errors import UserError
from services.difficulty.budget.fixed import Fixed
from services.difficulty.state import Beliefs


def states(size):
    ones = np.ones(size)
    return Beliefs(ones, ones, ones, ones > 1)


@pytest.mark.parametrize(("budget", "prompts"), [(0, 0), (7, 0), (8, 1), (23, 2), (24, 3)])
def test_it_asks_for_whole_groups_only(budget, prompts):
    assert Fixed(n=8).prompts(budget) == prompts
    assert Fixed(n=8)(states(prompts), budget).sum() == 8 * prompts <= budget


def test_more_groups_than_the_budget_holds_are_refused():
    with pytest.raises(UserError, match="3 prompts of 8 rollouts were asked for; accepted: 23 rollouts"):
        Fixed(n=8)(states(3), 23)


def test_a_group_of_none_is_refused():
    with pytest.raises(ValueError, match="n is 0"):
        Fixed(n=0)
