"""Turn-level advantages on recorded rollouts of several turns and agents."""

from __future__ import annotations

import pytest
import torch

from services.learning.advantage.advevo_public_baseline import AdvevoPublicBaseline
from services.learning.advantage.mars_turn import MarsTurn
from services.learning.collate import collate
from services.learning.signal._calls import Calls
from sluice.v1 import rollout_pb2
from tests.services.learning.made import lists, supplied, vector
from tests.services.learning.numbers import near
from tests.services.learning.rollouts import call, group, member, with_fields

ENVIRONMENT, POLICY = rollout_pb2.TOKEN_KIND_ENVIRONMENT, rollout_pb2.TOKEN_KIND_POLICY


def turn(tokens, reward, player=0, role="", index=0, said=()):
    """A call with its step reward; `said`: words of the environment before it, recorded as untrained tokens."""
    place = rollout_pb2.CallPlace(player=player, role=role, turn=index, step_reward=reward)
    kinds = [*[ENVIRONMENT] * len(said), *[POLICY] * len(tokens)]
    return call([*said, *tokens], place=place, token_kinds=kinds)


def batch_of(*rollouts, groups=None):
    members = [member(calls, False, index=i) for i, calls in enumerate(rollouts)]
    found = collate([group("g", members)], 0, 16, dtype=torch.float64)
    return with_fields(found, reward_N=torch.zeros(len(members), dtype=torch.float64))


def view(player, first, second):
    """One player's view of a game: two own turns of two tokens, a word of the environment before the second."""
    return [turn([3, 4], first, player), turn([5, 6], second, player, index=1, said=[9])]


def games():
    return batch_of(view(0, 0, 1), view(1, 0, -1), view(0, 0.2, -1), view(1, 0, 1))


def test_mars_turn_rewards_lose_their_players_mean():
    batch = supplied(games(), MarsTurn())
    calls = Calls.of(batch)
    found = calls.table(MarsTurn().centred(batch, calls, calls.last(batch.signals["player"]), range(2)))
    near(found, [[-0.05, 0.95], [0, -1], [0.15, -1.05], [0, 1]])


def test_mars_reward_to_go_loses_the_mean_of_the_players_distinct_values():
    part = MarsTurn(whiten_rewards=False, whiten_advantages=False)
    found = part(supplied(games(), part))
    near(found[0], [0.925, 0.925, 0, 0.975, 0.975])
    near(found[2], [-0.875, -0.875, 0, -1.025, -1.025])
    near(found[1], [-1, -1, 0, -1, -1])
    near(found[3], [1, 1, 0, 1, 1])


def test_mars_whitens_over_all_players():
    part = MarsTurn(whiten_rewards=False)
    found = part(supplied(games(), part))
    near(found[0], [0.9175, 0.9175, 0, 0.9671, 0.9671], 1e-4)
    near(found[1], [-0.9919, -0.9919, 0, -0.9919, -0.9919], 1e-4)
    near(found[2], [-0.8679, -0.8679, 0, -1.0167, -1.0167], 1e-4)
    near(found[3], [0.9919, 0.9919, 0, 0.9919, 0.9919], 1e-4)


def test_mars_two_players_in_one_rollout_are_credited_apart():
    calls = [turn([3], 0, 0), turn([4], 0, 1, index=1), turn([5], 1, 0, index=2), turn([6], -1, 1, index=3)]
    part = MarsTurn(whiten_rewards=False, whiten_advantages=False)
    batch = supplied(batch_of(calls, [turn([3], 0, 0), turn([4], 0, 1, index=1)]), part)
    found = part(batch)
    assert found[0, 0] > 0 > found[1, 0] and found[0, 1] < 0 < found[1, 1]


def test_mars_a_player_whose_values_are_all_one_gets_zero():
    part = MarsTurn()
    assert part(supplied(batch_of([turn([3], 1)], [turn([4], 1)]), part)).tolist() == [[0.0], [0.0]]


def test_mars_on_single_turn_rollouts_uses_their_reward():
    part = MarsTurn(whiten_rewards=False, whiten_advantages=False)
    near(part(supplied(lists([1, 0, 0, 0], lengths=[2, 1, 1, 1]), part))[:, 0], [0.5, -0.5, -0.5, -0.5])


def slow_mars(batch, gamma):
    """Token by token: rewards at ends, whitened, to go, less distinct means, whitened again."""
    mask, player, rewards = batch.mask_NT, batch.signals["player"], batch.signals["turn_reward"]
    x = torch.zeros_like(rewards)
    ends = {(i, int((batch.call_NT[i, : int(n)] == c).nonzero().max())) for i, n in enumerate(batch.length_N)
            for c in set(batch.call_NT[i, : int(n)].tolist())}  # fmt: skip
    for one in (0, 1):
        own = [(i, t) for i, t in ends if mask[i, t] and player[i, t] == one]
        for i, t in own:
            x[i, t] = rewards[i, t] - sum(rewards[j, u] for j, u in own) / len(own)
    x = (x - x[mask].mean()) / (x[mask].var() + 1e-8).sqrt() * mask
    out = torch.zeros_like(x)
    for i, t in mask.nonzero().tolist():
        later = [u for u in range(t, x.shape[1]) if mask[i, u] and player[i, u] == player[i, t]]
        out[i, t] = sum(gamma ** (u - t) * x[i, u] for u in later)
    for one in (0, 1):
        own = mask & (player == one)
        out = out - out[own].round(decimals=6).unique().mean() * own
    return (out - out[mask].mean()) / (out[mask].var() + 1e-8).sqrt() * mask


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_mars_by_calls_is_mars_by_tokens(gamma):
    both = [turn([3], 0.5, 0), turn([4, 7], 0.1, 1, index=1), turn([5, 3], 1, 0, index=2), turn([6], -1, 1, index=3)]
    batch = supplied(batch_of(view(0, 0, 1), view(1, 0.3, -1), both, [turn([3, 4, 5], 0.7, 0)]), MarsTurn())
    near(MarsTurn(gamma=gamma)(batch), slow_mars(batch, gamma).tolist(), 1e-9)


def roles():
    attacker = [[turn([3], r, role="attacker")] for r in (0, 1)]
    defender = [[turn([4], r, role="defender")] for r in (1, 0.5, 0)]
    return batch_of(*attacker, *defender)


def test_advevo_agents_of_a_functional_group_share_a_baseline():
    part = AdvevoPublicBaseline(whiten=False)
    near(part(supplied(roles(), part))[:, 0], [-0.5, 0.5, 0.5, 0, -0.5])


def test_advevo_whitens_over_the_tokens_of_the_step():
    part = AdvevoPublicBaseline()
    found = part(supplied(roles(), part))[:, 0]
    raw = vector([-0.5, 0.5, 0.5, 0, -0.5])
    near(found, (raw / (raw.var() + 1e-8).sqrt()).tolist())


def test_advevo_counts_an_agents_whole_return_on_each_of_its_tokens():
    calls = [turn([3], 1, role="attacker"), turn([4, 5], 0, role="defender", index=1), turn([6], 1, role="attacker")]
    part = AdvevoPublicBaseline(whiten=False)
    found = part(supplied(batch_of(calls, [turn([3], 0, role="attacker")]), part))
    near(found[0], [1, 0, 0, 1])
    near(found[1, :1], [-1])


def test_advevo_a_group_that_speaks_once_for_a_prompt_gets_zero_there():
    part = AdvevoPublicBaseline(whiten=False, pool="prompt")
    batch = supplied(batch_of([turn([3], 1, role="attacker")], [turn([4], 1, role="defender")]), part)
    assert part(batch).tolist() == [[0.0], [0.0]]
