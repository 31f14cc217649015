"""A trust region on probabilities, not on their ratio: rare tokens are not punished for being rare (DPPO).

    p = e^logp,  q = e^prox,    W = min(p / q, cap)
    tv:   M = 0 where A > 0 and p - q > limit,  or  A <= 0 and p - q < -limit
    kl:   M = 0 where KL(Bernoulli q || Bernoulli p) > limit and the move is on in the direction of A
    both: M = 0 where |p - q| > limit                                     (prime-rl's symmetric "ipo")

Source: DPPO ("Rethinking the trust region in LLM reinforcement learning", arXiv:2602.04879) as in verl (`dppo_tv`,
`dppo_kl`, cap 20); prime-rl's default loss is tv at 0.2 with q from the sampler, beside `log_ratio_square` at 0.001.
Odd cases: A = 0 has no gradient either way. p or q of exactly 0 or 1 are taken 1e-12 away for the KL. Ratios are
clamped at 20 nats before the cap.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio


@dataclass(frozen=True)
class Dppo:
    """p [.9, .5, .2, .05], q [.6, .45, .5, .3], A [1, 1, -1, -1], tv at .2: M = [0, 1, 0, 0]; kl at .2 the same."""

    divergence: str = knob("tv", "what is bounded", choices=("tv", "kl", "both"))
    limit: float = knob(0.2, "largest difference (tv, both) or divergence (kl)", unit="probability or nats", ge=0)
    cap: float = knob(20.0, "largest weight", unit="ratio", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        p_NT, q_NT = logp_NT.exp(), batch.prox_NT.exp()
        moved_NT = (p_NT - q_NT).nan_to_num(nan=0.0)
        if self.divergence == "both":
            keep_NT = moved_NT.abs() <= self.limit
        else:
            far_NT = moved_NT.abs() if self.divergence == "tv" else bernoulli_kl(q_NT, p_NT)
            onward_NT = ((advantage_NT > 0) & (moved_NT > 0)) | ((advantage_NT <= 0) & (moved_NT < 0))
            keep_NT = ~(onward_NT & (far_NT > self.limit))
        return Weighed(log_ratio(logp_NT, batch.prox_NT)[0].exp().clamp(max=self.cap), keep_NT)


def bernoulli_kl(q_NT: Tensor, p_NT: Tensor) -> Tensor:
    """KL of a coin of chance q from a coin of chance p, nats."""
    q_NT, p_NT = q_NT.double().clamp(1e-12, 1 - 1e-12), p_NT.double().clamp(1e-12, 1 - 1e-12)
    return q_NT * (q_NT / p_NT).log() + (1 - q_NT) * ((1 - q_NT) / (1 - p_NT)).log()
