"""A quadratic pull towards the proximal policy on the sampled tokens (Kimi's OPMD, DRO, prime-rl, REC's k2).

    loss += coef * sum_t (logp_t - prox_t)^2 / (trained tokens)

Source: Kimi k1.5 (arXiv:2501.12599) and DRO (arXiv:2405.19107) write tau/2 with tau 0.1, coef 0.05; Trinity's REC k2
has the half absorbed, 0.1; prime-rl 0.001 towards the sampler.
Odd cases: a token whose log-prob is not finite on either side is left out. The term is not masked by weight parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.regularizer import safe, token_mean, usable


@dataclass(frozen=True)
class LogRatioSquare:
    """logp [-.5, -1], prox [-.6, -.8], coef .1: (.01 + .04) / 2 * .1 = 0.0025."""

    coef: float = knob(0.05, "strength; half of tau in the papers", unit="per square nat", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        mask_NT = usable(batch, forward.logp_NT, batch.prox_NT)
        gap_NT = safe(mask_NT, forward.logp_NT) - safe(mask_NT, batch.prox_NT)
        return self.coef * token_mean(batch, gap_NT**2, mask_NT)
