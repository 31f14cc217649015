"""Each reward is normalised in its group, then summed, then the sum over the step (GDPO, reward-decoupled).

    A_k = (r_k - mean_k) / (std_k + eps) in the group,   S = sum_k w_k A_k,   A = (S - mean S) / (std S + eps)

Source: GDPO (NVIDIA), arXiv:2601.05242; released TRL fork (std over rollouts, eps 1e-4); its verl form whitens over
tokens (`unit: token`, eps 1e-6). TRL's `normalize_then_sum` and ms-swift's `gdpo` (eps 1e-8) are the same.
Odd cases: a reward that is equal in a group adds 0. A rollout that lacks a reward (NaN) gets 0 for it, and is left out
of its group's statistics (`missing: skip`, TRL) or counted as 0 in them (`zero`, the fork). Equal sums get 0. Not the
GDPO of diffusion models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_mean, named
from services.learning.batch import Batch
from services.learning.reduce import group_sum, row_count, step_moments


@dataclass(frozen=True)
class GdpoRewardDecoupled:
    """(correct, format) (1,1), (1,0), (0,1), (0,0) | (1,1), 3 (0,1): A = [1.527404, 0, 0, -1.527404, 1.322735, ...]."""

    rewards: tuple[str, ...] = knob(("accuracy", "format"), "raw rewards by name; reward: the combined, shaped one")
    weights: tuple[float, ...] = knob((), "one per reward; all 1 when empty")
    eps: float = knob(1e-4, "added to every std", unit="reward", ge=0)
    missing: str = knob("skip", "what a reward that a verdict lacks is", choices=("skip", "zero"))
    unit: str = knob("rollout", "what the step's mean and std count", choices=("rollout", "token"))

    def __post_init__(self) -> None:
        check(self)
        if self.weights and len(self.weights) != len(self.rewards):
            raise ValueError(f"knob weights has {len(self.weights)} numbers; accepted: {len(self.rewards)}, or none")

    z_score: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> Tensor:
        weights = self.weights or (1.0,) * len(self.rewards)
        total_N = sum(w * self._normal(batch, named(batch, k)) for w, k in zip(weights, self.rewards, strict=True))
        mask = row_count(batch.mask_NT) if self.unit == "token" else None
        mean, std = step_moments(batch, total_N, mask, 1)
        return torch.where(std > 0, (total_N - mean) / (std + self.eps), torch.zeros_like(total_N))

    def _normal(self, batch: Batch, reward_N: Tensor) -> Tensor:
        known_N = ~reward_N.isnan() if self.missing == "skip" else torch.ones_like(reward_N, dtype=torch.bool)
        reward_N = reward_N.nan_to_num(nan=0.0)
        above_N = torch.where(known_N, reward_N - masked_mean(batch, reward_N, known_N), torch.zeros_like(reward_N))
        count_N = group_sum(batch, known_N.to(reward_N.dtype))
        std_N = (group_sum(batch, above_N**2) / (count_N - 1).clamp(min=1)).sqrt()
        return torch.where(std_N > 1e-12, above_N / (std_N + self.eps), torch.zeros_like(above_N))
