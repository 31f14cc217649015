"""Off-policy sequence masking: wrong answers that the policy has already left are not pushed further (OPSM).

    M = 0 for a rollout with A < 0 and mean_t (behaviour_t - logp_t) > delta,    else 1;    W = 1

Source: DeepSeek-V3.2, arXiv:2512.02556; TRL and slime (0.5 suggested there). It reads the current policy.
Odd cases: with advantages per token only those below 0 are masked. Stands beside a clipped ratio. Log-ratios are
clamped to 20 nats before the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Opsm:
    """(A, mean) = (-1, .3), (-1, .7), (1, .9) at delta .5: keep, drop, keep."""

    delta: float = knob(0.5, "largest mean fall of the log-prob", unit="nats per token", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        fall_N1 = -row_log_ratio(batch, log_ratio(logp_NT, batch.behaviour_NT)[0])
        return Weighed(torch.ones_like(logp_NT), ~((advantage_NT < 0) & (fall_N1 > self.delta)))
