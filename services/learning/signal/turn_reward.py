"""The reward of each step of a rollout, at the last token of its call, [N, T]; 0 elsewhere.

    x_t = step reward of the call that ends at t;   where no call of a rollout has one: its reward, at its last token

Source: turn-level methods (MARS, AdvEvo-MARL) place rewards at the ends of turns. What the environment gave is the
call's `step_reward`; rewards that came in while another spoke are recorded with the speaker's own call.
Odd case: a single-turn rollout has its combined reward at its end, so that turn-level methods work on it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal._calls import last_of_call, spread


@dataclass(frozen=True)
class TurnReward:
    """
    >>> TurnReward()
    TurnReward()
    """

    def __call__(self, batch: Batch, score: Callable[..., object]) -> Tensor:
        end_NT = last_of_call(batch)
        told_NT = spread(batch, lambda call: call.place.HasField("step_reward")) > 0
        step_NT = torch.where(end_NT, spread(batch, lambda call: call.place.step_reward), 0.0)
        place_T = torch.arange(end_NT.shape[1], device=end_NT.device)
        final_NT = (place_T == batch.length_N[:, None] - 1) & ~told_NT.any(1, keepdim=True)
        return torch.where(final_NT, batch.reward_N[:, None], step_NT).to(batch.behaviour_NT.dtype)
