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
from services.learning.signal._calls import last_of_call


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
        player_NT, mask_NT = batch.signals["player"], batch.mask_NT
        players = int(batch.world.max(player_NT.max().double() if player_NT.numel() else torch.zeros(()).double())) + 1
        own = [mask_NT & (player_NT == player) for player in range(players)]
        found_NT = self._centred(batch, own)
        if self.whiten_rewards:
            found_NT = whiten(batch, found_NT, mask_NT, 1e-8) * mask_NT
        found_NT = sum(self._to_go(found_NT * mine_NT) * mine_NT for mine_NT in own)
        for mine_NT in own:
            found_NT = found_NT - self._distinct_mean(batch, found_NT[mine_NT]) * mine_NT
        return (whiten(batch, found_NT, mask_NT, 1e-8) if self.whiten_advantages else found_NT) * mask_NT

    def _centred(self, batch: Batch, own: list[Tensor]) -> Tensor:
        """Turn rewards minus their player's mean, at ends of turns."""
        reward_NT, end_NT = batch.signals["turn_reward"], last_of_call(batch)
        found_NT = torch.zeros_like(reward_NT)
        for mine_NT in own:
            mean, _ = step_moments(batch, reward_NT, mine_NT & end_NT, 1)
            found_NT = torch.where(mine_NT & end_NT, reward_NT - mean, found_NT)
        return found_NT

    def _to_go(self, reward_NT: Tensor) -> Tensor:
        place_T = torch.arange(reward_NT.shape[1], device=reward_NT.device, dtype=reward_NT.dtype)
        scale_T = self.gamma**place_T
        return (reward_NT * scale_T).flip(1).cumsum(1).flip(1) / scale_T

    def _distinct_mean(self, batch: Batch, value_K: Tensor) -> Tensor:
        mine_K = value_K.round(decimals=self.digits).unique()
        every_K = torch.cat(batch.world.gather_rows(mine_K[:, None])).flatten().unique()
        return every_K.mean() if len(every_K) else every_K.new_zeros(())
