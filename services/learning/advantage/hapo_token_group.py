"""Group mean and std over the tokens of the group, so that a token is a token (HAPO's token-level group average).

    mean, std (population) of the reward over all tokens of the group,   A_i = (r_i - mean) / (std + eps)

Source: HAPO (heterogeneous adaptive policy optimisation), arXiv:2509.16591, and its released code.
Odd cases: a group with any |A| >= `limit` is normalised over rollouts instead, as GRPO (unbiased std). Equal rewards
get 0; a group of one is raw, as GRPO. The redistribution by entropy and the adaptive clip are the weight part `hapo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import mixed
from services.learning.advantage.group_norm import GroupNorm
from services.learning.batch import Batch
from services.learning.reduce import group_range, group_sum, row_count


@dataclass(frozen=True)
class HapoTokenGroup:
    """Rewards [1, 0, 0], lengths [2, 4, 2]: mean .25, std .433013, A = [1.732047, -.577349, -.577349]."""

    eps: float = knob(1e-6, "added to the std", unit="reward", ge=0)
    limit: float = knob(5.0, "a group with an absolute advantage as large is normalised over rollouts", gt=0)

    __post_init__ = check

    z_score: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> Tensor:
        reward_N, tokens_N = batch.reward_N, row_count(batch.mask_NT).to(batch.reward_N.dtype)
        count_N = group_sum(batch, tokens_N).clamp(min=1)
        above_N = reward_N - group_sum(batch, tokens_N * reward_N) / count_N
        std_N = (group_sum(batch, tokens_N * above_N**2) / count_N).sqrt()
        found_N = above_N / (std_N + self.eps)
        largest_N = group_range(batch, torch.where(found_N.abs() >= self.limit, 1.0, 0.0).to(found_N.dtype))
        over_N = (largest_N > 0) | (found_N.abs() >= self.limit) | ~mixed(batch, reward_N)
        return torch.where(over_N, GroupNorm(eps=self.eps)(batch), found_N)
