"""Truncated importance sampling: corrects what the behaviour policy sampled, with a bound on the weight (TIS).

    token:     W_t = min(rho_t, cap),                        rho_t = exp(top_t - behaviour_t)
    sequence:  W   = min(exp(sum_t log rho_t), cap), the same for every token of the rollout

with top = prox (`of: prox`, multiplies an already clipped loss) or top = the policy itself (`of: policy`, detached:
the weight is then the whole off-policy correction, and takes the place of a clipped ratio).

Source: "Your efficient RL framework secretly brings you off-policy RL training" (Yao et al., 2025); verl 2.0, TRL
3.0.
Odd cases: W stays detached. A sequence product explodes with length; prefer token. AIPO (arXiv:2505.24034) is `of:
policy`; prime-rl's documentation writes it without the stopped gradient, so that a truncated token has none: that is
`masked_is` with `low: 0`. With `prox: behaviour` and `of: prox` every weight is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import CLAMP, Weighed, everywhere, log_ratio, row_log_ratio


@dataclass(frozen=True)
class Tis:
    """Behaviour [-1, -.5, -2, -.7], prox [-.9, -.6, -1.2, -.7], cap 2: W = [1.105171, 0.904837, 2, 1]."""

    cap: float = knob(2.0, "largest weight", unit="ratio", gt=0)
    level: str = knob("token", "one weight per token or per rollout", choices=("token", "sequence"))
    of: str = knob("prox", "whose probability is in the numerator", choices=("prox", "policy"))

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        weight_NT = truncated(batch, logp_NT if self.of == "policy" else batch.prox_NT, self.cap, self.level)
        return Weighed(weight_NT, everywhere(weight_NT))


def truncated(batch: Batch, top_NT: Tensor, cap: float, level: str) -> Tensor:
    """min(top / behaviour, cap) per token [N, T] or per rollout [N, 1]."""
    log_NT, _ = log_ratio(top_NT, batch.behaviour_NT)
    if level == "sequence":
        log_NT = row_log_ratio(batch, log_NT, "sum").clamp(-CLAMP, CLAMP)
    return log_NT.exp().clamp(max=cap)
