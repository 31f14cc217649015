"""Reward minus pass rate, scaled by a Beta density that is fitted to the pass rates of the step (BNPO).

    p = mean of the group;  m, s^2 = mean and variance of p over the step's prompts;  k = m (1 - m) / s^2 - 1
    alpha = max(1, 1 + k m / 3),   beta = max(1, 1 + k (1 - m) / 3)
    A_i = (r_i - p) / BetaPDF(p; alpha, beta),   the factor at most `cap`

Source: BNPO, arXiv:2506.02864, and its released code. alpha = beta = 1 is REINFORCE with the group's mean as baseline,
alpha = beta = 3/2 is GRPO's scale. With several `rewards` the advantage is the mean of theirs (the paper's advantage
decomposition).
Odd cases: one prompt, or equal pass rates: alpha = beta = 1. A group of equal rewards gets 0, a group of one its raw
reward (p = 0). Rewards are mapped from [low, high] to [0, 1]. Not TRL's `loss_type: bnpo`, which is a denominator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import named, prompt_moments
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_range, group_size


@dataclass(frozen=True)
class Bnpo:
    """Pass rates .25, .75, .5: alpha = beta = 1.5, factors .9069, .9069, .785398; at p = .25, r = 1: A = .680175."""

    rewards: tuple[str, ...] = knob(("reward",), "raw rewards whose advantages are averaged; reward: the combined one")
    low: float = knob(0.0, "reward that counts as 0", unit="reward")
    high: float = knob(1.0, "reward that counts as 1", unit="reward")
    cap: float = knob(1e6, "largest factor", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        values = [named(batch, name).nan_to_num(nan=self.low) for name in self.rewards]
        return torch.stack([self._one(batch, value_N) for value_N in values]).mean(0)

    def _one(self, batch: Batch, reward_N: Tensor) -> Tensor:
        value_N = (reward_N - self.low) / (self.high - self.low)
        p_N = torch.where(group_size(batch) > 1, group_mean(batch, value_N), torch.zeros_like(value_N))
        above_N = torch.where((group_range(batch, value_N) == 0) & (group_size(batch) > 1), 0.0, value_N - p_N)
        return self.factor(p_N.clamp(0, 1), *prompt_moments(batch, p_N, 1)) * above_N

    def factor(self, p_N: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """1 / BetaPDF(p), [N], for pass rates of this mean and std over prompts."""
        count = torch.where(std > 0, mean * (1 - mean) / (std**2).clamp(min=1e-300) - 1, torch.zeros_like(std))
        alpha, beta = (1 + count * mean / 3).clamp(min=1), (1 + count * (1 - mean) / 3).clamp(min=1)
        height = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
        log_N = torch.xlogy(alpha - 1, p_N) + torch.xlogy(beta - 1, 1 - p_N) - height
        return (-log_N).exp().clamp(max=self.cap)
