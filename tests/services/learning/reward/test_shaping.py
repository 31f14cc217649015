"""Reward parts against the worked numbers of their papers."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch

from services.learning.advantage.group_norm import GroupNorm
from services.learning.collate import collate
from services.learning.reward._diversity import diversity, signals, yule
from services.learning.reward.gcpo_geometry import GcpoGeometry
from services.learning.reward.gui_critic import GuiCritic
from services.learning.reward.hybrid import Hybrid
from services.learning.reward.information_consistent import InformationConsistent, token_entropy
from services.learning.reward.log_sigmoid import LogSigmoid
from services.learning.reward.multi_choice import MultiChoice
from services.learning.reward.multirole_diversity import MultiroleDiversity
from services.learning.reward.progressive import Progressive
from services.learning.reward.unlikeliness import Unlikeliness
from services.learning.reward.verpo_tests import VerpoTests
from services.learning.reward.weighted_sum import WeightedSum
from sluice.v1 import rollout_pb2
from tests.services.learning.made import lists, vector
from tests.services.learning.numbers import near
from tests.services.learning.rollouts import call, group, member, with_fields

NAN = float("nan")


def paid(part, batch):
    return part(batch, batch.reward_N)


def test_unlikeliness_discounts_likely_right_answers():
    batch = lists([1, 1, 0, 1], logps=[-0.2, -0.5, -0.3, -0.9])
    found = paid(Unlikeliness(), batch)
    near(found, [0.8125, 0.9375, 0, 1])
    near(GroupNorm()(with_fields(batch, reward_N=found)), [0.268866, 0.537732, -1.478762, 0.672165])


def test_unlikeliness_does_not_count_a_rollout_without_a_reward():
    found = paid(Unlikeliness(), lists([1, NAN, 1], logps=[-0.2, -0.9, -0.5]))
    near(found[[0, 2]], [1 - 0.25 / 2, 1])
    assert found[1].isnan()


def test_tw_grpo_pays_part_of_a_multi_choice_answer():
    raw = {"said": [1, 2, 3, 0], "right": [1, 1, 3, 0], "expected": [3, 3, 3, 3]}
    near(paid(MultiChoice(), lists([0, 0, 1, 0], raw=raw)), [0.333333, 0, 1, 0])


def test_tw_grpo_keeps_the_reward_of_a_verdict_without_counts():
    near(paid(MultiChoice(), lists([1, 0])), [1, 0])


def test_log_sigmoid_of_one_reward():
    near(paid(LogSigmoid(reference=1.0), lists([-2, 0, 2])), [-3.048587, -1.313262, -0.313262])


def test_log_sigmoid_sum_is_a_logical_and():
    batch = lists([2, 0], raw={"other": [-2, 0]})
    near(paid(LogSigmoid(rewards=("reward", "other")), batch), [-2.253856, -1.386294])


def test_log_sigmoid_rescaled():
    batch = lists([0.3], raw={"other": [0.9]})
    near(paid(LogSigmoid(rewards=("reward", "other"), rescale=True), batch), [0.645965])


def test_log_sigmoid_takes_the_prompts_own_reference():
    batch = lists([2, 2], raw={"reward_ref": [1, 2]})
    near(paid(LogSigmoid(), batch), [-0.313262, -0.693147])


def test_multi_objective_weighted_sum():
    batch = lists([0.9, 0.2, 0.8, 0.5], raw={"polite": [0.5, 0.9, 0.4, 0.5]})
    found = paid(WeightedSum(rewards=("reward", "polite")), batch)
    near(found, [0.7, 0.55, 0.6, 0.5])
    near(GroupNorm()(with_fields(batch, reward_N=found)), [1.31745, -0.43915, 0.146383, -1.024683], 2e-5)


def test_multi_objective_weights_must_be_one_per_reward():
    with pytest.raises(ValueError, match="accepted: 1"):
        WeightedSum(weights=(0.5, 0.5))


def test_harmo_length_penalty_and_sum():
    part = Hybrid(low=100.0, high=400.0)
    near(part.penalty(torch.tensor([20, 100, 300, 600, 2000]), 4096), [-0.8, 0, 0, -0.5, -1])
    batch = lists([1], raw={"model": [0.8], "format": [1]})
    near(paid(part, with_fields(batch, length_N=torch.tensor([600]))), [1.5])


def test_prs_stages():
    batch = lists([0, 0.5, 0.5, 1], raw={"format": [1, 0, 1, 1]})
    outcomes = [rollout_pb2.VERDICT_OUTCOME_UNPARSABLE, *[rollout_pb2.VERDICT_OUTCOME_PARTIAL] * 3]
    near(paid(Progressive(), with_fields(batch, outcome_N=torch.tensor(outcomes))), [0, 0.1, 0.6, 1])


def test_gui_critic_pays_a_suggestion_only_under_a_right_verdict():
    raw = {"format": [1, 1, 1, 1], "suggestion": [1, 0, 0, 1]}
    near(paid(GuiCritic(), lists([1, 1, 0, 0], raw=raw)), [1.6, 1.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("with_", "without", "mask"),
    [([1, 1, 1, 0], [1, 0, 0, 0], 1), ([1, 0], [1, 0], 0), ([1, 0, 0, 0], [1, 1, 1, 0], -1)],
)
def test_gcpo_geometry_rewards_constructions_where_they_help(with_, without, mask):
    raw = {"construction": [1] * len(with_) + [0] * len(without)}
    batch = lists([*with_, *without], raw=raw)
    made, known = batch.rewards["construction"] > 0, torch.ones(len(batch), dtype=torch.bool)
    near(GcpoGeometry().mask(batch, made, known), [mask] * len(batch))
    gained = paid(GcpoGeometry(length=0.0), batch) - batch.reward_N
    near(gained, [0.5 * mask] * len(with_) + [0] * len(without))


def test_gcpo_geometry_a_group_of_one_kind_has_no_mask():
    batch = lists([1, 0], raw={"construction": [1, 1]})
    near(paid(GcpoGeometry(length=0.0), batch), [1, 0])


def test_gcpo_geometry_length_counts_up_to_its_bound():
    batch = lists([0, 0], lengths=[2, 8], longest=8)
    near(paid(GcpoGeometry(full=4.0), batch), [0.05, 0.1])


def test_information_consistent_worked_number():
    batch, part = lists([0, 0, 0, 0]), InformationConsistent()
    known = torch.ones(4, dtype=torch.bool)
    entropy = vector([2, 2.4, 1.6, 2])
    near(part.worth(batch, entropy, known), [0.5833, 0.6667, 0.1667, 0.5833], 1e-4)
    near(dataclasses.replace(part, alpha=0.0).worth(batch, entropy, known), [0.6667, 0.3333, 0.3333, 0.6667], 1e-4)
    near(dataclasses.replace(part, alpha=1.0).worth(batch, entropy, known), [0.5, 1, 0, 0.5])
    near(dataclasses.replace(part, alpha=0.0, per="group").worth(batch, entropy, known), [0.25] * 4)


def test_information_consistent_entropy_is_of_the_rollouts_own_tokens():
    groups = [group("g", [member([call(tokens)], index=i) for i, tokens in enumerate([[3, 3], [3, 4], [1, 2, 1, 2]])])]
    near(token_entropy(collate(groups, 0, 8, dtype=torch.float64)), [0, math.log(2), math.log(2)])


def test_information_consistent_equal_entropies_are_consistent_and_a_missing_reward_stays_missing():
    found = paid(InformationConsistent(keep=0.0), lists([0, 0]))
    near(found, [0.5, 0.5])
    assert paid(InformationConsistent(), lists([0, NAN])).isnan().tolist() == [False, True]


def with_tests(*flags, accuracy):
    members = []
    for i, row in enumerate(flags):
        one = member([call([3])], accuracy[i], index=i)
        one.verdict.tests.extend(row)
        members.append(one)
    batch = collate([group("g", members)], 0, 8, dtype=torch.float64)
    return with_fields(batch, reward_N=batch.accuracy_N)


VERPO = [[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_verpo_weighs_tests_by_how_rarely_the_group_passes_them():
    batch = with_tests(*VERPO, accuracy=[0, 0, 1, 0])
    found = paid(VerpoTests(), batch)
    near(found - batch.reward_N, [0.6312, 0.3145, 1.1497, 0], 1e-4)
    advantage = GroupNorm(scale="none")(with_fields(batch, reward_N=found))
    near(advantage, [-0.1427, -0.4593, 1.3759, -0.7739], 1e-4)
    worth = GroupNorm(scale="none")(with_fields(batch, reward_N=found - batch.reward_N))
    near(worth, [0.1073, -0.2093, 0.6259, -0.5239], 1e-4)


def test_verpo_a_crash_passes_nothing_and_without_tests_nothing_changes():
    near(paid(VerpoTests(), with_tests([1, 1], [], accuracy=[1, 0]))[1:], [0])
    near(paid(VerpoTests(), lists([1, 0])), [1, 0])


def test_verpo_does_not_count_a_rollout_without_a_reward():
    batch = with_tests([1, 0], [0, 1], [1, 1], accuracy=[0, 0, 1])
    alone = paid(VerpoTests(), with_tests([1, 0], [0, 1], accuracy=[0, 0]))
    found = paid(VerpoTests(), with_fields(batch, reward_N=vector([0, 0, NAN])))
    torch.testing.assert_close(found[:2], alone)


def test_verpo_normalised_weights_sum_to_one():
    found = paid(VerpoTests(normalise=True), with_tests([1, 1, 1], [0, 0, 0], accuracy=[0, 0]))
    near(found, [1, 0])


def test_multirole_signals_of_three_sentences():
    found = signals("the cat sat on the mat. why did the cat sit? the dog ran.")
    wanted = {"types": 0.7143, "entropy": 0.9311, "lengths": 0.2673, "neighbours": 0.8036, "bigrams": 0.9231}
    assert {name: round(found[name], 4) for name in wanted} == wanted
    assert round(found["kinds"], 4) == 0.4591
    assert all(0 <= value <= 1 for value in found.values()) and len(found) == 8


def test_multirole_reward_with_its_share_of_diversity():
    near(MultiroleDiversity().shaped(vector([1]), vector([0.7])), [0.97])


def test_multirole_varied_text_is_worth_more_and_no_text_nothing():
    texts = ["yes yes yes", "First, note that one is odd. Why does it matter? The sum stays even!", ""]
    members = [member([call([3], text=text)], index=i) for i, text in enumerate(texts)]
    batch = collate([group("g", members)], 0, 8, dtype=torch.float64)
    found = MultiroleDiversity()(batch, vector([0, 0, 0]))
    assert found[1] > found[0] > found[2] == 0 and diversity("") == 0


def test_multirole_yule_counts_repetition():
    counts = Counter(the=4, cat=2, sat=1, on=1, mat=1, why=1, did=1, sit=1, dog=1, ran=1)
    assert round(yule(counts), 2) == 714.29
