"""Masked importance sampling: a weight inside its bounds, nothing outside them (IcePop, MIS, seq-mask-TIS).

    rho_t = exp(top_t - behaviour_t);    level token: rho_t,  sequence: prod_t rho_t,  geometric: (prod_t rho_t)^(1/n)
    M = 1 where low <= rho at level `bound` <= high,    W = rho at level `weight`, or 1 ("none")

with top = prox (`of: prox`, multiplies a clipped loss) or the policy itself (`of: policy`, detached).

Source: IcePop (Ring-1T, arXiv:2510.18855) is token and token in 0.5 to 5 (NeMo-RL's bounds); masked IS ("When speed
kills stability", Liu et al. 2025) is sequence and sequence; NeMo-RL's seq-mask-tis is geometric in 0.999 to 1.002
with token weights; AReaL's decoupled loss (arXiv:2505.24298) is token and token in 0 to 5.
Odd cases: bounds hold for the ratio as clamped at 20 nats. A rollout without a trained token has ratio 1. AReaL and
TRL count a masked token in the denominator, verl does not: the denominator's `shrink`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import CLAMP, Weighed, everywhere, log_ratio, row_log_ratio


@dataclass(frozen=True)
class MaskedIs:
    """rho = [1.105171, 0.904837, 2.225541, 1] in 0.5 to 2: W M = [1.105171, 0.904837, 0, 1]."""

    low: float = knob(0.5, "smallest ratio that is kept", unit="ratio", ge=0)
    high: float = knob(5.0, "largest ratio that is kept", unit="ratio", gt=0)
    bound: str = knob("token", "level of the ratio that is bounded", choices=("token", "sequence", "geometric"))
    weight: str = knob("token", "level of the weight", choices=("token", "sequence", "geometric", "none"))
    of: str = knob("prox", "whose probability is in the numerator", choices=("prox", "policy"))

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, _ = log_ratio(logp_NT if self.of == "policy" else batch.prox_NT, batch.behaviour_NT)
        bound_NT = _at(batch, log_NT, self.bound).exp()
        weight_NT = _at(batch, log_NT, self.weight).exp() if self.weight != "none" else torch.ones_like(log_NT)
        return Weighed(weight_NT, (bound_NT >= self.low) & (bound_NT <= self.high) & everywhere(log_NT))


def _at(batch: Batch, log_NT: Tensor, level: str) -> Tensor:
    if level == "token":
        return log_NT
    return row_log_ratio(batch, log_NT, "mean" if level == "geometric" else "sum").clamp(-CLAMP, CLAMP)
