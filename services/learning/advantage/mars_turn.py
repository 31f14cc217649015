"""Turn-level credit in self-play, normalised for each player on its own (MARS).

    1  rewards at ends of turns, minus their player's mean over the step
    2  masked whitening of token rewards (`whiten_rewards`)
    3  reward-to-go of the same player, gamma per token
    4  minus the mean of the player's distinct values over the step
    5  masked whitening over all players (`whiten_advantages`)

Source: MARS, arXiv:2510.15414, and its released code (whitening: unbiased, eps 1e-8 inside the root).
Odd cases: distinct values are told apart at `digits` decimals and over trained tokens only (released: exactly, and with
masked positions). A player with one distinct value gets 0 at step 4. Tokens that are not trained get 0. A rollout with
no recorded turns is one turn of player 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import whiten
from services.learning.batch import Batch
from services.learning.reduce import step_moments
from services.learning.signal._calls import Calls


@dataclass(frozen=True)
class MarsTurn:
    """Turns p0 (0, 1), (.2, -1), p1 (0, -1), (0, 1), whiten_rewards off: p0 [.9175 | .9671], p1 -.9919 in game one."""

    whiten_rewards: bool = knob(True, "whiten token rewards after the players' means")
    whiten_advantages: bool = knob(True, "whiten the result over all players")
    gamma: float = knob(1.0, "discount per token of the reward-to-go", gt=0, le=1)
    digits: int = knob(6, "decimals at which two values are the same", ge=1, le=12)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"player", "turn_reward"})

    def __call__(self, batch: Batch) -> Tensor:
        calls = Calls.of(batch)
        player_K, count_K = calls.last(batch.signals["player"]), calls.count(batch.mask_NT)
        most = player_K.max() if len(player_K) else torch.zeros((), dtype=torch.long, device=player_K.device)
        players = range(int(batch.world.max(most.double())) + 1)
        gain_K = self.centred(batch, calls, player_K, players)
        if self.whiten_rewards:  # their mean is 0, and so is every token's that ends no turn
            square, tokens = batch.world.sum(torch.stack([(gain_K**2).sum(), count_K.sum()]))
            gain_K = gain_K / (square / (tokens - 1).clamp(min=1) + 1e-8).sqrt()
        value_K = self.to_go(calls, gain_K * self.gamma ** calls.end_K.to(gain_K.dtype), player_K, players)
        if self.gamma == 1:  # equal all along a call
            return calls.along(self._finished(batch, value_K, player_K, count_K, players)) * batch.mask_NT
        place_T = torch.arange(batch.call_NT.shape[1], device=value_K.device, dtype=value_K.dtype)
        value_NT = calls.along(value_K) / self.gamma**place_T * batch.mask_NT
        return self._finished(batch, value_NT, batch.signals["player"], batch.mask_NT, players) * batch.mask_NT

    def centred(self, batch: Batch, calls: Calls, player_K: Tensor, players: range) -> Tensor:
        """Turn rewards minus their player's mean, [K]; 0 where the end of a turn is not trained on. Collective."""
        reward_K, trained_K = calls.last(batch.signals["turn_reward"]), calls.last(batch.mask_NT)
        found_K = torch.zeros_like(reward_K)
        for player in players:
            own_K = trained_K & (player_K == player)
            found_K = torch.where(own_K, reward_K - step_moments(batch, reward_K, own_K, 1)[0], found_K)
        return found_K

    def to_go(self, calls: Calls, gain_K: Tensor, player_K: Tensor, players: range) -> Tensor:
        """What the same player still gains from each call on, [K]."""
        found_K = torch.zeros_like(gain_K)
        for player in players:
            own_K = player_K == player
            rest_NC = calls.table(gain_K * own_K).flip(1).cumsum(1).flip(1)
            found_K = torch.where(own_K, rest_NC[calls.row_K, calls.call_K], found_K)
        return found_K

    def _finished(self, batch: Batch, value: Tensor, player: Tensor, weight: Tensor, players: range) -> Tensor:
        """Steps 4 and 5, on values that stand for `weight` trained tokens each."""
        for one in players:
            own = (player == one) & (weight > 0)
            value = value - self._distinct_mean(batch, value[own]) * own
        return whiten(batch, value, weight, 1e-8) if self.whiten_advantages else value

    def _distinct_mean(self, batch: Batch, value_K: Tensor) -> Tensor:
        mine_K = value_K.round(decimals=self.digits).unique()
        every_K = torch.cat(batch.world.gather_rows(mine_K[:, None])).flatten().unique()
        return every_K.mean() if len(every_K) else every_K.new_zeros(())
