"""CANON: a group is split by a metric of its responses, and each half is compared with the other or with itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from services.learning.advantage._group import masked_mean, rank, step_mean, tie_break
from services.learning.batch import Batch
from services.learning.reduce import group_size


def canon(batch: Batch, metric_N: Tensor, mix: float, alpha: float, long_first: bool) -> Tensor:
    """mix * inter + (1 - mix) * intra, [N], before the division by a length.

    inter: reward minus the mean of the other half; intra: minus the mean of the own half. `alpha` < 1 leans towards
    one half: with `long_first` the high half's own reward and the low half's baseline are damped, else the converse.
    """
    reward_N, size_N = batch.reward_N, group_size(batch)
    high_N = rank(batch, metric_N, tie_break(batch)) >= size_N.long() // 2
    above_N, below_N = masked_mean(batch, reward_N, high_N), masked_mean(batch, reward_N, ~high_N)
    damped_N = high_N == long_first
    own_N = torch.where(damped_N, alpha * reward_N, reward_N)
    other_N = torch.where(high_N, below_N, above_N)
    inter_N = own_N - torch.where(damped_N, other_N, alpha * other_N)
    intra_N = reward_N - torch.where(high_N, above_N, below_N)
    found_N = mix * inter_N + (1 - mix) * intra_N
    return torch.where(size_N == 1, reward_N, found_N)


def scheduled(batch: Batch, mix: float, schedule: str) -> float:
    """The weight of the comparison between halves at this step."""
    if schedule == "accuracy":
        return 1 - float(step_mean(batch, batch.reward_N))
    if schedule == "cosine":
        return cosine(batch.version)
    return mix


def cosine(step: int, steps: int = 150, warm: int = 30, cycles: int = 3, top: float = 0.6) -> float:
    """Linear warm-up to `top`, then cosines that fall to 0 and begin anew; 0 after the last step.

    >>> [round(cosine(step), 6) for step in (0, 29, 30, 50, 70)]
    [0.02, 0.6, 0.6, 0.3, 0.6]
    """
    if step < warm:
        return top * (step + 1) / warm
    length = (steps - warm) / cycles
    return top * (1 + math.cos(math.pi * ((step - warm) % length) / length)) / 2
