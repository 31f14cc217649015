"""The geometric mean of token ratios, each clipped in log space (GMPO).

    d_t = logp_t - prox_t,    c_t = min(d_t, high) at A >= 0, max(d_t, -low) at A < 0,    W_t = exp( mean_t c_t )
    M_t = 1 where c_t = d_t

which is -d/dlogp_t of  -A exp(mean_t c_t)  with the mean over tokens of each rollout as denominator.

Source: Geometric-Mean Policy Optimization, arXiv:2507.20673; verl's `geo_mean` loss (bounds 0.4 in the paper).
Odd cases: the advantage must be one per rollout. A clipped token has no gradient of its own and still moves W for the
rest of its rollout. Log-ratios beyond 20 nats are clamped and have none either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Gmpo:
    """d = [.6, -.1] at 0.4: A = 1: W = e^.15 = 1.161834, M = [0, 1]; A = -1: W = e^.25 = 1.284025, M = [1, 1]."""

    low: float = knob(0.4, "how far a log-ratio may fall below 0", unit="nats", ge=0)
    high: float = knob(0.4, "how far a log-ratio may rise above 0", unit="nats", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        kept_NT = torch.where(advantage_NT >= 0, log_NT.clamp(max=self.high), log_NT.clamp(min=-self.low))
        weight_NT = row_log_ratio(batch, kept_NT).exp().expand_as(logp_NT)
        return Weighed(weight_NT, inside_NT & (kept_NT == log_NT))
