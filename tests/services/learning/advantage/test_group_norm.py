"""GRPO, Dr. GRPO and RLOO advantages against their worked numbers."""

from __future__ import annotations

import pytest
import torch

from services.learning.advantage.group_norm import GroupNorm
from tests.services.learning.rollouts import rewarded


def near(found, wanted, tolerance=1e-5):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=found.dtype), atol=tolerance, rtol=0)


def test_grpo_one_right_of_four():
    near(GroupNorm(eps=1e-6)(rewarded([1, 0, 0, 0])), [1.499997, -0.499999, -0.499999, -0.499999], 1e-6)


def test_grpo_with_trl_eps():
    near(GroupNorm(eps=1e-4)(rewarded([1, 0, 0, 0])), [1.4997, -0.4999, -0.4999, -0.4999], 1e-4)


def test_grpo_three_right_of_four():
    near(GroupNorm()(rewarded([1, 1, 1, 0])), [0.499999, 0.499999, 0.499999, -1.499997], 1e-6)


def test_grpo_with_the_biased_std_of_numpy():
    near(GroupNorm(ddof=0, eps=0.0)(rewarded([1, 0, 0, 0])), [1.732051, -0.577350, -0.577350, -0.577350])


def test_grpo_groups_do_not_see_each_other_and_may_be_ragged():
    near(GroupNorm()(rewarded([1, 0, 0, 0], [1, 0])), [1.499997, *[-0.499999] * 3, 0.707106, -0.707106])


def test_grpo_a_group_of_one_is_raw_as_in_verl_or_zero_as_in_trl():
    near(GroupNorm(singleton="raw")(rewarded([0.7])), [0.699999], 1e-6)
    near(GroupNorm(singleton="zero")(rewarded([0.7])), [0.0])


@pytest.mark.parametrize("rewards", [[0.1] * 7, [0.0] * 4, [1.0] * 4])
@pytest.mark.parametrize("center", ["mean", "loo"])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_a_group_of_equal_rewards_gets_exactly_zero(rewards, center, scale):
    assert GroupNorm(center=center, scale=scale, eps=0.0)(rewarded(rewards)).tolist() == [0.0] * len(rewards)


def test_dr_grpo_subtracts_the_mean_only():
    near(GroupNorm(scale="none")(rewarded([1, 0, 0, 0])), [0.75, -0.25, -0.25, -0.25])


def test_rloo_leaves_one_out():
    part = GroupNorm(center="loo", scale="none", singleton="zero")
    near(part(rewarded([1, 0, 0, 0])), [1.0, -1 / 3, -1 / 3, -1 / 3])
    near(part(rewarded([1, 1, 1, 0])), [1 / 3, 1 / 3, 1 / 3, -1.0])


def test_rloo_is_a_multiple_of_dr_grpo_when_groups_are_equal():
    batch = rewarded([0.2, 0.7, 0.1], [1.0, 0.0, 0.4])
    loo = GroupNorm(center="loo", scale="none")(batch)
    torch.testing.assert_close(loo, 3 / 2 * GroupNorm(scale="none")(batch))


def test_grpo_does_not_see_a_positive_affine_map_of_the_reward():
    part = GroupNorm(eps=0.0)
    torch.testing.assert_close(part(rewarded([1, 0, 0.5, 0])), part(rewarded([5, 2, 3.5, 2])))
