"""Importance weights and masks on detached log-probs: `(batch, logp_NT, advantage_NT) -> Weighed`.

Weights of several parts multiply, masks are and-ed. Log-ratios are clamped to +-20 before exp; beyond the clamp the
paper's loss is flat in the log-prob, so such a token's mask is 0 where a ratio is what carries the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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
