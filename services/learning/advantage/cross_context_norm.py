"""The reward against a group that may hold borrowed rollouts (R^3's advantage on mixed groups).

    A_i = (r_i - mean) / (alpha std + lambda)        std of the population

alpha above 1 scales a group down that mixes policies.

Source: R^3, arXiv:2601.19620, section 3.2 and equation 3. alpha and lambda are not in the text read: a guess.
Odd cases: a group whose rewards are all equal gets exactly 0; so does a group of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_range, group_std


@dataclass(frozen=True)
class CrossContextNorm:
    """Rewards [0, 0, 0, 0, 1, 1]: alpha 1 gives -0.707105 and 1.414211, alpha 2 half of that."""

    alpha: float = knob(1.0, "factor of the std; a guess", gt=0)
    lam: float = knob(1e-6, "added to it, lambda; a guess", unit="reward", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        reward_N = batch.reward_N
        scale_N = self.alpha * group_std(batch, reward_N, ddof=0) + self.lam
        flat_N = group_range(batch, reward_N) == 0
        advantage_N = (reward_N - group_mean(batch, reward_N)) / torch.where(flat_N, torch.ones_like(scale_N), scale_N)
        return torch.where(flat_N, torch.zeros_like(reward_N), advantage_N)
