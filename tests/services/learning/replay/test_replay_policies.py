"""Every replay policy: its worked numbers, and what all of them owe the buffer."""

from __future__ import annotations

import random

import pytest

from pipeline import parts, partspec
from services.learning.replay.anchors import Anchors
from services.learning.replay.cross_context import CrossContext
from services.learning.replay.positive_reuse import PositiveReuse
from services.learning.replay.prioritised_advantage import PrioritisedAdvantage
from services.learning.replay.recent_sample_recovery import RecentSampleRecovery
from services.learning.replay.ssb import Ssb
from services.learning.replay.value_refill import ValueRefill
from tests.services.learning.replay.helpers import held, names

POLICIES = partspec.names("learning.replay")


def accuracies(group):
    return [member.verdict.accuracy for member in group.members]


def test_ssb_draws_by_mean_absolute_advantage():
    used = [held(1, 0, uses=1, advantage=size) for size in (1.5, 0.5, 0.0, 0.8)]
    assert Ssb().chances(used) == pytest.approx([0.535714, 0.178571, 0, 0.285714], abs=1e-6)
    counts = dict.fromkeys(names(used), 0)
    for seed in range(4000):
        batch = Ssb(seed=seed).choose([held(1, 0), *used], version=8, batch_groups=2, max_lag=2).batch
        counts[batch[1].group.group_id] += 1
    assert [each / 4000 for each in counts.values()] == pytest.approx([0.5357, 0.1786, 0, 0.2857], abs=0.03)


def test_ssb_takes_fresh_groups_where_nothing_with_an_advantage_is_held():
    buffer = [held(1, 0), held(1, 0), held(1, 1, uses=1, advantage=0.0)]
    assert names(Ssb().choose(buffer, 8, 2, max_lag=2).batch) == names(buffer[:2])
    assert Ssb().choose(buffer[1:], 8, 2, max_lag=2).batch == ()


def test_recent_sample_recovery_carries_the_surplus_in_front():
    policy, waiting = RecentSampleRecovery(), []
    trained = []
    groups = [held(1, 0) for _ in range(8)]
    for arrivals in (groups[:2], groups[2:4], groups[4:]):
        choice = policy.choose([*waiting, *arrivals], version=8, batch_groups=3, max_lag=2)
        waiting, trained = list(choice.kept), [*trained, names(choice.batch)]
    assert trained == [[], names(groups[:3]), names(groups[3:6])]
    assert names(waiting) == names(groups[6:])


def test_recent_sample_recovery_caps_the_age_of_what_it_carries():
    choice = RecentSampleRecovery(max_age=1).choose([held(1, 0, version=6), held(1, 0)], 8, 9, max_lag=5)
    assert [one.group.lag(8) for one in choice.stale] == [2] and len(choice.kept) == 1


def test_prioritised_advantage_takes_the_largest_first():
    used = [held(1, 0, uses=1, advantage=size) for size in (0.5, 1.5, 0.0, 0.8)]
    fresh = [held(1, 0), held(1, 0)]
    batch = PrioritisedAdvantage().choose([*fresh, *used], 8, 4, max_lag=2).batch
    assert names(batch) == names([*fresh, used[1], used[3]])
    # A restart forgot the advantages: 1 of 4 right has a mean |z| of 0.866, 2 of 4 of 1, all right of 0.
    forgotten = [held(1, 0, 0, 0, uses=1), held(1, 1, 0, 0, uses=1), held(1, 1, uses=1)]
    batch = PrioritisedAdvantage().choose([*fresh, *forgotten], 8, 4, max_lag=2).batch
    assert names(batch) == names([*fresh, forgotten[1], forgotten[0]])


def test_positive_reuse_prefers_the_newest_and_least_used():
    used = [held(1, 0, version=7, uses=1), held(1, 0, version=8, uses=2), held(1, 0, version=6, uses=1)]
    assert [PositiveReuse().priority(one, 8) for one in used] == [5.0, 4.0, 4.0]
    wrong = held(0, 0, version=8, uses=1)
    batch = PositiveReuse().choose([held(1, 0), held(1, 0), wrong, *reversed(used)], 8, 4, max_lag=2).batch
    assert names(batch[2:]) == names([used[0], used[2]])
    assert names(PositiveReuse().choose([held(1, uses=3)], 8, 1, max_lag=2).retired) != []


def test_r3_a_group_that_is_all_wrong_borrows_right_answers_and_the_other_way_round():
    wrong, right = held(0, 0, 0, 0), held(1, 1, prompt="q")
    lender, other = held(1, 0, 1, 0, uses=1), held(0, 0, 1, prompt="q", uses=2)
    choice = CrossContext(most=2).choose([wrong, right, lender, other], 8, 2, max_lag=2)
    first, second = (one.next_use() for one in choice.batch)
    assert accuracies(first) == [0, 0, 0, 0, 1, 1] and accuracies(second) == [1, 1, 0, 0]
    # The lender keeps its rollouts; what it lent has used up a number.
    assert [m.use for m in first.members] == [1, 1, 1, 1, 2, 2]
    assert names(choice.kept) == names([lender, other])
    assert [one.uses for one in choice.kept] == [2, 3]
    assert [m.use for m in choice.kept[0].group.members] == [3, 2, 3, 2]
    assert [m.use for m in choice.kept[0].next_use().members] == [3, 3, 3, 3]


def test_r3_borrows_nothing_across_prompts_nor_for_a_mixed_group():
    buffer = [held(0, 0), held(1, 0, prompt="q"), held(1, 1, prompt="z", uses=1), held(0, 1, prompt="q", uses=1)]
    choice = CrossContext().choose(buffer, 8, 2, max_lag=2)
    assert not any(one.borrowed for one in choice.batch)


def test_dagrpo_an_all_wrong_group_gets_one_anchor():
    hard, mixed, solved = held(0, 0, 0), held(0, 1, 0), held(1, 0, uses=1)
    choice = Anchors().choose([hard, mixed, solved], 8, 2, max_lag=2)
    assert accuracies(choice.batch[0].next_use()) == [0, 0, 0, 1] and not choice.batch[1].borrowed
    assert not Anchors().choose([held(1, 1), solved], 8, 1, max_lag=2).batch[0].borrowed


def test_vspo_values_and_refill():
    policy = ValueRefill()
    some = [policy.value([1] * ones + [0] * (10 - ones)) for ones in (2, 5, 8)]
    assert some == pytest.approx([0.32, 0.25, 0.08], abs=1e-9)
    silent, mixed, used = held(1, 1), held(1, 0), held(0, 0, 1, uses=1)
    choice = policy.choose([silent, mixed, used], 8, 2, max_lag=2)
    assert names(choice.batch) == names([mixed, used]) and names(choice.refilled) == names([silent])
    choice = policy.choose([silent, held(0, 0)], 8, 2, max_lag=2)
    assert choice.batch == () and len(choice.refilled) == 2


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_every_group_of_the_buffer_is_in_one_place_and_bounds_hold(name, seed):
    draw = random.Random(seed)
    buffer = [
        held(draw.randrange(2), draw.randrange(2), version=draw.randrange(1, 9), uses=draw.choice([0, 0, 1, 2]),
             prompt=draw.choice("pq"))
        for _ in range(30)
    ]  # fmt: skip
    policy = parts.load("learning.replay", name)
    choice = policy.choose(buffer, 8, 4, max_lag=3)
    places = [names(part) for part in (choice.batch, choice.kept, choice.stale, choice.retired, choice.refilled)]
    assert sorted(sum(places, [])) == sorted(names(buffer))
    for one in choice.batch:
        bound = getattr(policy, "reuse_max_lag", 0) if one.uses else 3
        assert one.group.lag(8) <= bound and one.uses < getattr(policy, "max_uses", 1)
        assert all(8 - member.min_version <= policy.reuse_max_lag for member in one.borrowed)
    uses = [(member.name, member.use) for one in choice.batch for member in one.next_use().members]
    assert len({who for who, _ in uses}) == len(uses), "a rollout is in one batch once"
    before = {member.name: member.use for one in buffer for member in one.group.members}
    assert all(use >= before[who] for who, use in uses)
    again = policy.choose(buffer, 8, 4, max_lag=3)
    assert [names(part) for part in (again.batch, again.kept)] == places[:2]
