"""DAPO's dynamic sampling."""

from __future__ import annotations

import torch

from services.learning.select.all_groups import AllGroups
from services.learning.select.informative_groups import InformativeGroups
from tests.services.learning.rollouts import rewarded, with_fields


def test_dapo_keeps_groups_that_differ_and_groups_of_one():
    keep = InformativeGroups()(rewarded([1, 1], [1, 0], [0, 0], [1]))
    assert keep.tolist() == [False, False, True, True, False, False, True]


def test_dapo_filters_on_accuracy_not_on_the_shaped_reward():
    batch = with_fields(rewarded([1, 1]), reward_N=torch.tensor([1.0, 0.4], dtype=torch.float64))
    assert InformativeGroups()(batch).tolist() == [False, False]


def test_dapo_bounds_on_the_mean_as_in_easyr1():
    batch = rewarded([1] * 9 + [0])
    assert InformativeGroups().__call__(batch).all()
    assert not InformativeGroups(high=0.9)(batch).any()


def test_grpo_keeps_every_group():
    assert AllGroups()(rewarded([1, 1], [0])).all()
