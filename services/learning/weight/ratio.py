"""The plain importance ratio, without any clip.

    W_t = exp(logp_t - prox_t),    M_t = 1

Source: importance sampling; the policy term of KL-Cov (arXiv:2505.22617) and of other methods that bound elsewhere.
Odd case: beyond the clamp at 20 nats the loss is flat, so M = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio


@dataclass(frozen=True)
class Ratio:
    """logp - prox = [.1, -.7, 25]: W M = [1.105171, 0.496585, 0]."""

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        return Weighed(log_NT.exp(), inside_NT)
