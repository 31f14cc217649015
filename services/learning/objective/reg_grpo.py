"""Regress the advantage: least squares between what the group's rewards say and what the policy has moved (Reg-GRPO).

    rho_i = sum_t (logp_t - prox_t),    P_i = (rho_i - mean_q rho) / (std_q rho + eps),   A_i = (r_i - mean_q r) / std_q
    loss = mean_i (A_i - P_i)^2          scale none: P_i = rho_i - mean_q rho;    the KL is a regularizer of its own

Source: DeepVideo-R1, arXiv:2506.07464 (text without its equations: the ddof, the sum over tokens and the KL's 0.04 are
guesses).
Odd cases: on-policy, at the first step, every rho is 0, and its std with it: the gradient is divided by eps, so a run
should take `scale: none`, which regresses on the plain difference. A group whose rewards are all equal has A = 0 and is
pulled together. `eps` is added under the root too, so that the gradient stays finite. The advantage is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.pairs import log_ratios
from services.learning.reduce import group_mean, group_range, group_size, group_std, group_sum


@dataclass(frozen=True)
class RegGrpo:
    """rho [.2, -.1, 0, .3], r [1, 0, 0, 1]: loss 0.102633 with ddof 0, 0.076975 with ddof 1."""

    scale: str = knob("std", "what rho is divided by", choices=("std", "none"))
    ddof: int = knob(0, "of both stds. 1: divide squares by n - 1; 0: by n", choices=(0, 1))
    eps: float = knob(1e-6, "added to the std of rho", unit="nats", gt=0)

    __post_init__ = check

    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "this objective regresses its own normalised reward and never reads the advantage",
        "modifiers": "this objective never reads the advantage that a modifier changes",
        "weight": "this objective never reads a weight",
    }

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        rho_N = log_ratios(forward, batch.prox_NT, batch.mask_NT)
        wanted_N, found_N = self.wanted(batch), self.found(batch, rho_N)
        return ((wanted_N - found_N) ** 2).sum() / max(batch.denominators.rows, 1.0)

    def wanted(self, batch: Batch) -> Tensor:
        """The normalised reward, [N]; 0 where a group's rewards are all equal."""
        std_N = group_std(batch, batch.reward_N, self.ddof)
        flat_N = (group_range(batch, batch.reward_N) == 0) | (std_N == 0)
        gap_N = (batch.reward_N - group_mean(batch, batch.reward_N)) / torch.where(
            flat_N, torch.ones_like(std_N), std_N
        )
        return torch.where(flat_N, torch.zeros_like(gap_N), gap_N)

    def found(self, batch: Batch, rho_N: Tensor) -> Tensor:
        """The predicted advantage, [N], with its graph."""
        gap_N = rho_N - group_mean(batch, rho_N)
        if self.scale == "none":
            return gap_N
        square_N = group_sum(batch, gap_N**2) / (group_size(batch) - self.ddof).clamp(min=1)
        return gap_N / ((square_N + self.eps**2).sqrt() + self.eps)
