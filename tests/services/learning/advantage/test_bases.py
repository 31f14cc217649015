"""Advantages of whole rollouts against the worked numbers of their papers."""

from __future__ import annotations

import itertools

import pytest
import torch

from services.learning.advantage._canon import cosine
from services.learning.advantage.bnpo import Bnpo
from services.learning.advantage.canon_entropy import CanonEntropy
from services.learning.advantage.canon_length import CanonLength
from services.learning.advantage.copo import Copo
from services.learning.advantage.dgpo_mathforge import DgpoMathforge
from services.learning.advantage.gdpo_reward_decoupled import GdpoRewardDecoupled
from services.learning.advantage.grao import Grao
from services.learning.advantage.group_norm import GroupNorm
from services.learning.advantage.hapo_token_group import HapoTokenGroup
from services.learning.advantage.mc_grpo import McGrpo
from services.learning.advantage.ngrpo import Ngrpo
from services.learning.advantage.opo import Opo
from services.learning.advantage.polychromic import Polychromic
from services.learning.advantage.rank_grpo import RankGrpo
from services.learning.advantage.reinforce_plus_plus import ReinforcePlusPlus
from services.learning.advantage.vgpo import Vgpo
from services.learning.select.median_pivot import MedianPivot
from tests.services.learning.made import lists, vector
from tests.services.learning.numbers import near
from tests.services.learning.rollouts import with_fields


def test_reinforce_plus_plus_whitens_over_the_tokens_of_the_step():
    near(ReinforcePlusPlus()(lists([1], [0], lengths=[2, 3])), [1.095445, -0.730297], 1e-6)


def test_reinforce_plus_plus_discounts_from_the_last_token_and_still_whitens():
    found = ReinforcePlusPlus(gamma=0.5)(lists([1], [0], lengths=[2, 3]))
    returns = vector([0.5, 1, 0, 0, 0])
    wanted = (returns - returns.mean()) / (returns.var() + 1e-8).sqrt()
    near(found[0, :2], wanted[:2].tolist(), 1e-9)
    near(found[1], wanted[2:].tolist(), 1e-9)


def test_reinforce_plus_plus_baseline_subtracts_the_group_first():
    found = ReinforcePlusPlus(baseline="group")(lists([1, 0, 0, 0], [1, 1, 1, 0]))
    near(found, [1.620185, *[-0.540062] * 3, *[0.540062] * 3, -1.620185], 1e-6)


def test_bnpo_factors_of_three_prompts():
    batch = lists([1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0])
    near(Bnpo()(batch)[:4], [0.680175, -0.226725, -0.226725, -0.226725])
    factors = Bnpo().factor(vector([0.25, 0.75, 0.5]), vector(0.5), vector(0.0625).sqrt())
    near(factors, [0.9069, 0.9069, 0.785398], 1e-4)


def test_bnpo_of_one_prompt_or_of_equal_pass_rates_is_reward_minus_pass_rate():
    near(Bnpo()(lists([1, 0, 0, 0])), [0.75, -0.25, -0.25, -0.25])
    near(Bnpo()(lists([1, 0], [0, 1])), [0.5, -0.5, -0.5, 0.5])


def test_bnpo_all_right_and_all_wrong_groups_are_zero_whatever_the_density_there():
    near(Bnpo()(lists([1, 1], [0, 0], [1, 0], [0.5, 0.7]))[:4], [0.0] * 4)


def test_bnpo_averages_the_advantages_of_several_rewards():
    batch = lists([1, 0, 0, 0], [1, 1, 0, 0], raw={"format": [1, 1, 0, 0, 1, 0, 0, 0]})
    both = Bnpo(rewards=("reward", "format"))(batch)
    torch.testing.assert_close(both, (Bnpo()(batch) + Bnpo(rewards=("format",))(batch)) / 2)


def test_mc_grpo_median_and_deviation():
    batch = lists([0.1, 0.4, 0.5, 0.9, 1])
    near(McGrpo()(batch), [-0.997506, -0.249377, 0, 0.997506, 1.246883])
    assert MedianPivot()(batch).tolist() == [True, True, False, True, True]


def test_mc_grpo_binary_rewards_explode_as_released_and_a_floor_holds_them():
    batch = lists([1, 1, 1, 0, 0])
    near(McGrpo()(batch), [0, 0, 0, -1000, -1000])
    near(McGrpo(rescale=True)(batch), [0, 0, 0, -2500, -2500])
    near(McGrpo(floor=0.5)(batch), [0, 0, 0, -2, -2])


def test_mc_grpo_leaves_exactly_one_out_of_every_group_with_company():
    batch = lists([1, 1, 1, 0], [0, 0], [1])
    assert MedianPivot()(batch).view(-1).split([4, 2, 1])[2].tolist() == [True]
    assert [int((~part).sum()) for part in MedianPivot()(batch).split([4, 2, 1])] == [1, 1, 0]


def gdpo_batch(**more):
    right = [1, 1, 0, 0, 1, 0, 0, 0]
    return lists(right[:4], right[4:], raw={"format": [1, 0, 1, 0, 1, 1, 1, 1]}, **more)


def test_gdpo_reward_decoupled_keeps_combinations_apart():
    found = GdpoRewardDecoupled()(gdpo_batch())
    near(found, [1.527404, 0, 0, -1.527404, 1.322735, *[-0.440912] * 3], 1e-4)


def test_gdpo_plain_grpo_on_the_sum_does_not():
    batch = gdpo_batch()
    summed = with_fields(batch, reward_N=batch.accuracy_N + batch.rewards["format"])
    near(GroupNorm(eps=1e-4)(summed), [1.224595, 0, 0, -1.224595, 1.4997, *[-0.4999] * 3], 1e-4)


def test_gdpo_a_reward_that_no_verdict_has_adds_nothing():
    batch = gdpo_batch()
    with_ghost = GdpoRewardDecoupled(rewards=("accuracy", "format", "ghost"))(batch)
    torch.testing.assert_close(with_ghost, GdpoRewardDecoupled()(batch))


def test_gdpo_weights_must_be_one_per_reward():
    with pytest.raises(ValueError, match="accepted: 2"):
        GdpoRewardDecoupled(weights=(1.0,))


def test_ngrpo_all_wrong_groups_are_pushed_down():
    near(Ngrpo()(lists([0, 0, 0, 0])), [-0.447213] * 4, 1e-6)
    near(Ngrpo()(lists([1, 0, 0, 0])), [1.095443, -0.730295, -0.730295, -0.730295], 1e-6)
    assert Ngrpo()(lists([1, 1, 1, 1])).tolist() == [0.0] * 4


def test_ngrpo_a_group_of_one_is_raw_or_compared_with_the_virtual_answer():
    near(Ngrpo()(lists([0.7])), [0.7 / (1 + 1e-6)], 1e-9)
    near(Ngrpo(singleton="virtual")(lists([0])), [-0.707106], 1e-6)


def test_dgpo_mathforge_mean_absolute_deviation():
    part = DgpoMathforge(weigh=False)
    near(part(lists([1, 0, 0, 0])), [1.999867, -0.666622, -0.666622, -0.666622])
    near(part(lists([1, 1, 0, 0])), [0.99995, 0.99995, -0.99995, -0.99995])


def test_dgpo_mathforge_weighs_hard_questions_and_the_tokens_of_groups_without_signal():
    rewards = [1, 0, 0, 0], [1, 1, 1, 0]
    near(DgpoMathforge()(lists(*rewards))[:4] / DgpoMathforge(weigh=False)(lists(*rewards))[:4], [1.124353] * 4)
    batch = lists(*rewards, [1, 1, 1, 1])
    near(DgpoMathforge()(batch)[:4], [3.372834, -1.124278, -1.124278, -1.124278])
    assert DgpoMathforge()(batch)[8:].tolist() == [0.0] * 4


def test_dgpo_mathforge_a_failed_main_reward_has_the_least_weight():
    batch = lists([0.2, 0, 0, 0], [1, 1, 1, 0], accuracy=[0, 0, 0, 0, 1, 1, 1, 0])
    ratio = DgpoMathforge()(batch) / DgpoMathforge(weigh=False)(batch)
    assert ratio[0] < ratio[4]


def test_canon_length_halves():
    batch = lists([1, 0, 1, 1], lengths=[1, 2, 3, 4], longest=8192)
    near(CanonLength()(batch) * 8192, [0, -1, 0.5, 0.5])
    near(CanonLength(mix=0.0)(batch) * 8192, [0.5, -0.5, 0, 0])
    near(CanonLength(mix=0.5)(batch) * 8192, [0.25, -0.75, 0.25, 0.25])
    near(CanonLength(alpha=0.9)(batch) * 8192, [0.1, -0.9, 0.4, 0.4])


def test_canon_even_halves_at_one_half_are_dr_grpo():
    batch = lists([1, 0, 1, 1], [0.3, 0.1], lengths=[4, 2, 1, 3, 1, 2], longest=1)
    torch.testing.assert_close(CanonLength(mix=0.5)(batch), GroupNorm(scale="none")(batch))


def test_canon_entropy_leans_the_other_way():
    batch = lists([1, 0, 1, 1], longest=1).with_signals(entropy=vector([[0.1], [0.2], [0.3], [0.4]]))
    near(CanonEntropy()(batch), [0, -1, 0.5, 0.5])
    near(CanonEntropy(alpha=0.9)(batch), [-0.1, -1, 0.55, 0.55])


def test_canon_schedules():
    near(vector([cosine(step) for step in (0, 29, 30, 50, 70)]), [0.02, 0.6, 0.6, 0.3, 0.6], 1e-9)
    batch = lists([1, 0, 1, 1], lengths=[1, 2, 3, 4], longest=1)
    torch.testing.assert_close(CanonLength(schedule="accuracy")(batch), CanonLength(mix=0.25)(batch))
    late = with_fields(batch, version=50)
    torch.testing.assert_close(CanonLength(schedule="cosine")(late), CanonLength(mix=0.3)(batch))


def test_copo_entropy_share_and_consistency():
    batch = lists([1, 1, 1, 0]).with_signals(answer=torch.tensor([4, 4, 4, 5]))
    entropy = Copo().entropy(batch)
    near(entropy, [0.811278] * 4)
    near(1 - (1 - 1 / 4) / 2 * entropy, [0.695771] * 4)
    near(Copo(mode="soft").share(entropy, vector([1.0] * 4)), [0.998026] * 4)
    different = lists([1, 0, 0, 0]).with_signals(answer=torch.tensor([1, 2, 3, 4]))
    near(Copo().entropy(different), [2.0] * 4)
    near(Copo(mode="soft").share(vector([0.0]), vector([1.0])), [4.54e-5], 1e-7)


def test_copo_global_advantage_over_prompts():
    batch = lists([1, 1, 1, 0], [0, 0], [1]).with_signals(answer=torch.tensor([0, 0, 0, 1, 2, 2, 3]))
    found = Copo().across(batch, Copo().entropy(batch))
    near(found[[0, 4, 6]], [0.320256, -1.120895, 0.800639])


def test_copo_a_group_that_agrees_learns_from_the_others():
    batch = lists([1, 1], [0, 0]).with_signals(answer=torch.tensor([0, 0, 1, 1]))
    near(Copo()(batch), [0.707106, 0.707106, -0.707106, -0.707106], 1e-5)
    assert Copo(mode="local")(batch).tolist() == [0.0] * 4


def test_copo_one_prompt_has_no_global_signal():
    batch = lists([1, 1]).with_signals(answer=torch.tensor([0, 0]))
    assert Copo()(batch).tolist() == [0.0, 0.0]


def test_opo_length_weighted_baseline():
    near(Opo()(lists([1, 0, 0, 0], lengths=[1, 2, 3, 4])), [0.9, -0.1, -0.1, -0.1])
    assert Opo()(lists([0.1] * 7, lengths=[1, 2, 3, 4, 5, 6, 7])).tolist() == [0.0] * 7


def test_hapo_token_level_group_average():
    near(HapoTokenGroup()(lists([1, 0, 0], lengths=[2, 4, 2])), [1.732047, -0.577349, -0.577349])


def test_hapo_a_group_with_a_huge_advantage_is_normalised_over_rollouts():
    batch = lists([1, 0], [1, 0], lengths=[1, 60, 1, 1], longest=64)
    torch.testing.assert_close(HapoTokenGroup()(batch)[:2], GroupNorm()(batch)[:2])


def set_worth(rewards, answers, chosen):
    return sum(rewards[i] for i in chosen) / len(chosen) * len({answers[i] for i in chosen}) / len(chosen)


def test_polychromic_sets_share_what_they_are_worth():
    rewards, d = [1, 0, 1, 0], [1, 0.5, 1, 1]
    sets = [(0, 1), (0, 2), (2, 3), (1, 3)]
    worth = [sum(rewards[i] for i in chosen) / 2 * d[k] for k, chosen in enumerate(sets)]
    assert worth == [0.5, 0.5, 0.5, 0.0]
    near(vector(worth) - vector(worth).mean(), [0.125, 0.125, 0.125, -0.375])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_polychromic_closed_form_is_the_mean_over_all_sets(n):
    rewards, answers = [1, 0, 0.5, 0, 1, 0.25], [0, 1, 0, 2, 1, 0]
    batch = lists(rewards, [1, 0]).with_signals(answer=torch.tensor([*answers, 0, 1]))
    sets = list(itertools.combinations(range(6), n))
    every = sum(set_worth(rewards, answers, chosen) for chosen in sets) / len(sets)
    of = [[set_worth(rewards, answers, chosen) for chosen in sets if i in chosen] for i in range(6)]
    wanted = [sum(worths) / len(worths) - every for worths in of]
    near(Polychromic(n=n)(batch), [*wanted, 0, 0], 1e-9)


def test_polychromic_worked_number():
    batch = lists([1, 0, 1, 0]).with_signals(answer=torch.tensor([0, 1, 0, 1]))
    near(Polychromic()(batch), [0.083333, -0.083333, 0.083333, -0.083333])


def test_vgpo_keeps_a_signal_where_rewards_are_equal():
    near(Vgpo()(lists([1, 0, 0, 0])), [1.599997, -0.499999, -0.499999, -0.499999], 1e-6)
    near(Vgpo()(lists([1, 1], [0, 0])), [0.1, 0.1, 0, 0])


def test_grao_coefficients_with_the_reference_inside():
    batch = lists([0, 1, 0, 1]).with_signals(demonstration=vector([0, 0, 0, 1]))
    near(Grao()(batch) / 3, [-0.533333, 0.533333, -0.533333, 0.7])
    likelihood = vector([-1.2, -0.8, -1.0, -1.5])
    near((Grao()(batch) / 3 * likelihood).sum()[None], [-0.303333])


def test_grao_without_a_reference_is_a_z_score_times_one_plus_lambda():
    batch = lists([1, 0, 0, 0], [1, 1]).with_signals(demonstration=vector([0] * 6))
    near(Grao()(batch), [1.6 * 1.732051, *[-1.6 * 0.577350] * 3, 0, 0])


def rank_batch(**more):
    batch = lists([0, 0], lengths=[3, 3], raw={"rank_1": [1, 0], "rank_2": [0, 1], "rank_3": [1, 0]})
    return with_fields(batch, side={"item": vector([[0, 1, 2], [0, 1, 2]])}, **more)


def test_rank_grpo_causal_rewards_and_their_advantages():
    part = RankGrpo(hits=True)
    near(part.rewards(rank_batch()).T, [[1.5, 0.5, 0.5], [0.630930, 0.630930, 0]])
    wanted = [[0.706992, -0.706344, 0.706907], [-0.706992, 0.706344, -0.706907]]
    near(part(rank_batch()), wanted)
    near(RankGrpo(hits=True, causal=False).rewards(rank_batch()).T, [[1, 0, 0.5], [0, 0.630930, 0]])


def test_rank_grpo_without_items_every_token_answers_for_the_whole_list():
    batch = with_fields(rank_batch(), side={})
    near(RankGrpo(hits=True)(batch), [0.706992, -0.706992])
