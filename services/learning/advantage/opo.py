"""The length-weighted mean of the group as baseline (OPO): the variance-optimal one where a token's score has one size.

    b = sum_i len_i r_i / sum_i len_i,   A_i = r_i - b

Source: OPO, arXiv:2505.23585; verl `compute_opo_outcome_advantage`. A cheap stand-in for OBLR-PO's baseline.
Odd cases: equal rewards get 0. A group of one has no baseline: A = r, as in verl. Groups without tokens get r - 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.reduce import group_range, group_size, group_sum, row_count


@dataclass(frozen=True)
class Opo:
    """Lengths 10, 20, 30, 40, rewards [1, 0, 0, 0]: b = .1, A = [.9, -.1, -.1, -.1]."""

    def __call__(self, batch: Batch) -> Tensor:
        return weighted(batch, row_count(batch.mask_NT).to(batch.reward_N.dtype))


def weighted(batch: Batch, weight_N: Tensor) -> Tensor:
    """Reward minus its group's mean under `weight_N` >= 0, [N]."""
    reward_N = batch.reward_N
    base_N = group_sum(batch, weight_N * reward_N) / group_sum(batch, weight_N).clamp(min=1e-12)
    base_N = torch.where(group_size(batch) > 1, base_N, torch.zeros_like(base_N))
    flat_N = (group_range(batch, reward_N) == 0) & (group_size(batch) > 1)
    return torch.where(flat_N, torch.zeros_like(reward_N), reward_N - base_N)
