"""The reward against its group: a baseline, divided by a scale.

    A_i = (r_i - b_i) / s_i
    center  mean: b = mean of the group;  loo: b = mean of the others;  none: b = 0
    scale   std:  s = std of the group (ddof) + eps;  none: s = 1

Source: GRPO (DeepSeekMath, arXiv:2402.03300) is mean and std; Dr. GRPO (arXiv:2503.20783) is mean and none; RLOO
(arXiv:2402.14740) is loo and none. Released code differs: verl ddof 1, eps 1e-6, singleton raw; TRL eps 1e-4, singleton
zero; understand-r1-zero eps 1e-8.
Odd cases: a group whose rewards are all equal gets exactly 0. A group of one has no baseline: `singleton` is "raw"
(A = r / (1 + eps) with a scale, as verl; A = r without) or "zero".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_range, group_size, group_std, group_sum


@dataclass(frozen=True)
class GroupNorm:
    """Rewards [1, 0, 0, 0], ddof 1, eps 1e-6: [1.499997, -0.499999, -0.499999, -0.499999]."""

    center: str = knob("mean", "baseline", choices=("mean", "loo", "none"))
    scale: str = knob("std", "what it is divided by", choices=("std", "none"))
    ddof: int = knob(1, "1: divide squares by n - 1, as torch and released code; 0: by n", choices=(0, 1))
    eps: float = knob(1e-6, "added to the std", unit="reward", ge=0)
    singleton: str = knob("raw", "what a group of one gets", choices=("raw", "zero"))

    __post_init__ = check

    z_score: ClassVar[str] = "scale=std"

    def __call__(self, batch: Batch) -> Tensor:
        reward_N, size_N = batch.reward_N, group_size(batch)
        alone_N = size_N == 1
        advantage_N = reward_N - self._baseline(batch, reward_N, size_N)
        scale_N = group_std(batch, reward_N, self.ddof) + self.eps if self.scale == "std" else torch.ones_like(reward_N)
        flat_N = (group_range(batch, reward_N) == 0) & (self.center != "none")
        advantage_N = torch.where(flat_N, torch.zeros_like(reward_N), advantage_N / scale_N)
        raw_N = reward_N / (1 + self.eps) if self.scale == "std" else reward_N
        single_N = raw_N if self.singleton == "raw" else torch.zeros_like(raw_N)
        return torch.where(alone_N, single_N, advantage_N)

    def _baseline(self, batch: Batch, reward_N: Tensor, size_N: Tensor) -> Tensor:
        if self.center == "none":
            return torch.zeros_like(reward_N)
        if self.center == "mean":
            return group_mean(batch, reward_N)
        return (group_sum(batch, reward_N) - reward_N) / (size_N - 1).clamp(min=1)
