"""Importance weights and masks on detached log-probs: `(batch, logp_NT, advantage_NT) -> Weighed`.

A part that keeps state between steps has `open(optimizer)`, which gives a running one: a `Controller` that is also
called as the part is.

Weights of several parts multiply, masks are and-ed. Log-ratios are clamped to +-20 before exp; beyond the clamp the
paper's loss is flat in the log-prob, so such a token's mask is 0 where a ratio is what carries the gradient.

A part with statistics over the step or over groups makes them in `over_step(batch) -> {signal: [N] or [N, T]}`, once
per step and before it is cut into micro-batches; where that reads the policy's log-probs it needs "step_logp". A part
that weighs otherwise than 1 where all policies agree says in `shapes` how.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.reduce import row_mean

CLAMP = 20.0
"""Bound on the absolute log-ratio, nats (verl)."""


@dataclass(frozen=True)
class Weighed:
    """A weight W >= 0 and a mask M (bool, or a soft gate), each broadcast to [N, T]."""

    weight_NT: Tensor
    mask_NT: Tensor


def log_ratio(above_NT: Tensor, below_NT: Tensor) -> tuple[Tensor, Tensor]:
    """(clamped log-ratio, True where the clamp did not act), [N, T]; undefined ones count as clamped, at 0.

    >>> import torch
    >>> log_ratio(torch.tensor([[0.0, -1.0, -1.0]]), torch.tensor([[-0.5, -30.0, float("-inf")]]))
    (tensor([[ 0.5000, 20.0000, 20.0000]]), tensor([[ True, False, False]]))
    """
    raw_NT = above_NT - below_NT
    inside_NT = raw_NT.abs() <= CLAMP
    return raw_NT.nan_to_num(nan=0.0).clamp(-CLAMP, CLAMP), inside_NT


def unclipped(ratio_NT: Tensor, advantage_NT: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Where PPO's clipped loss has a gradient: not above 1 + high at A > 0, not below 1 - low at A < 0. [N, T], bool.

    >>> unclipped(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 1.0]), 0.2, 0.2)
    tensor([ True, False])
    """
    return ~((advantage_NT > 0) & (ratio_NT > 1 + high)) & ~((advantage_NT < 0) & (ratio_NT < 1 - low))


def row_log_ratio(batch: Batch, log_NT: Tensor, how: str = "mean") -> Tensor:
    """Token log-ratios of each rollout's trained tokens, their "mean" (geometric) or "sum" (product), [N, 1], nats.

    0 for a rollout without a trained token.
    """
    if how == "mean":
        return row_mean(log_NT, batch.mask_NT)[:, None]
    return torch.where(batch.mask_NT, log_NT, torch.zeros_like(log_NT)).sum(1, keepdim=True)


def everywhere(like_NT: Tensor) -> Tensor:
    """A mask that leaves every token open."""
    return torch.ones_like(like_NT, dtype=torch.bool)
