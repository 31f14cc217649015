"""Several rewards become one by a weighted sum (multi-objective GRPO).

    r = sum_k w_k s_k

Source: multi-objective GRPO for safety, arXiv:2503.21819: one regression model gives several labels, and their sum is
the reward; its weights are not stated, equal ones are a guess. GDPO normalises each first instead.
Odd cases: a reward that a verdict lacks counts as 0. A rollout without a reward stays without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reward._named import component


@dataclass(frozen=True)
class WeightedSum:
    """(.9, .5), (.2, .9), (.8, .4), (.5, .5) at .5 each: [.7, .55, .6, .5]."""

    rewards: tuple[str, ...] = knob(("reward",), "raw rewards by name; reward: the combined one so far")
    weights: tuple[float, ...] = knob((), "one per reward; equal ones that sum to 1 when empty")

    def __post_init__(self) -> None:
        check(self)
        if self.weights and len(self.weights) != len(self.rewards):
            raise ValueError(f"knob weights has {len(self.weights)} numbers; accepted: {len(self.rewards)}, or none")

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        weights = self.weights or (1 / len(self.rewards),) * len(self.rewards)
        total_N = sum(w * component(batch, k, reward_N) for w, k in zip(weights, self.rewards, strict=True))
        return torch.where(reward_N.isnan(), reward_N, total_N)
