"""Sums, means and spreads over groups, rows and the whole step: the few statistics that methods are made of.

`ddof` is explicit everywhere: 1 is torch's and most released code's, 0 is numpy's. Nothing loops over rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch


def group_sum(batch: Batch, x_N: Tensor) -> Tensor:
    """Sum of `x_N` over each rollout's group, [N]."""
    return x_N.new_zeros(batch.groups).index_add_(0, batch.group_N, x_N)[batch.group_N]


def group_size(batch: Batch) -> Tensor:
    """Members of each rollout's group, [N], float."""
    return group_sum(batch, torch.ones_like(batch.reward_N))


def group_mean(batch: Batch, x_N: Tensor) -> Tensor:
    """Mean of `x_N` over each rollout's group, [N]."""
    return group_sum(batch, x_N) / group_size(batch)


def group_std(batch: Batch, x_N: Tensor, ddof: int) -> Tensor:
    """Standard deviation of `x_N` in each rollout's group, [N]; 0 where the group has `ddof` members or fewer."""
    square_N = group_sum(batch, (x_N - group_mean(batch, x_N)) ** 2)
    return (square_N / (group_size(batch) - ddof).clamp(min=1)).sqrt() * (group_size(batch) > ddof)


def group_range(batch: Batch, x_N: Tensor) -> Tensor:
    """Largest minus smallest `x_N` in each rollout's group, [N]: exactly 0 when all are equal."""
    start = x_N.new_zeros(batch.groups)
    high = start.scatter_reduce(0, batch.group_N, x_N, "amax", include_self=False)
    low = start.scatter_reduce(0, batch.group_N, x_N, "amin", include_self=False)
    return (high - low)[batch.group_N]


def step_moments(batch: Batch, x: Tensor, mask: Tensor | None, ddof: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `x` where `mask`, over the whole step on all ranks. Collective.

    Two passes, so that the spread of near-equal values is not lost to rounding; 0 where nothing is left to divide by.
    """
    weight = torch.ones_like(x) if mask is None else mask.to(x.dtype)
    total = batch.world.sum(torch.stack([(x * weight).sum(), weight.sum()]))
    mean = total[0] / total[1].clamp(min=1)
    square = batch.world.sum(((x - mean) ** 2 * weight).sum())
    std = (square / (total[1] - ddof).clamp(min=1)).sqrt()
    return mean, torch.where(total[1] > ddof, std, torch.zeros_like(std))


def row_mean(x_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Mean of `x_NT` over each row's masked tokens, [N]; 0 for a row without any."""
    kept_NT = torch.where(mask_NT, x_NT, torch.zeros_like(x_NT))
    return kept_NT.sum(1) / row_count(mask_NT).clamp(min=1)


def row_count(mask_NT: Tensor) -> Tensor:
    """How many tokens of each row are marked, [N], long. Bytes are summed: torch sums bools ten times slower."""
    return mask_NT.view(torch.uint8).sum(1, dtype=torch.int32).long()


def per_token(x: Tensor, like_NT: Tensor) -> Tensor:
    """A value per rollout spread over its tokens: [N] becomes [N, 1]; [N, T] stays."""
    return x[:, None] if x.dim() < like_NT.dim() else x
