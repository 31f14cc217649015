"""The reward against the mean of the policy's own rollouts of the prompt; demonstrations are not compared.

    A_i = r_i - mean of the group's own rollouts,    0 for a rollout whose every token was injected

Source: HPT (TsinghuaC3I/Unify-Post-Training), which drops the demonstration or the rollouts before any statistic.
Odd cases: an own rollout alone in its group gets 0, and so do equal rewards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.demonstration import demonstrations
from services.learning.reduce import group_sum


@dataclass(frozen=True)
class OwnGroup:
    """Own rewards [1, 0, 0, 0] and a demonstration of reward 1: [0.75, -0.25, -0.25, -0.25, 0]."""

    def __call__(self, batch: Batch) -> Tensor:
        own_N = (~demonstrations(batch).any(1)).to(batch.reward_N.dtype)
        mean_N = group_sum(batch, own_N * batch.reward_N) / group_sum(batch, own_N).clamp(min=1)
        return torch.where(own_N > 0, batch.reward_N - mean_N, torch.zeros_like(mean_N))
