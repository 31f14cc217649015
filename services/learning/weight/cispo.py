"""Clip the weight, never the token: every token keeps a gradient (CISPO).

    W_t = clip(exp(logp_t - prox_t), 1 - low, 1 + high),    M_t = 1
    with `mask`:  M_t = 0 where A > 0 and the ratio is above 1 + high, or A < 0 and it is below 1 - low

Source: MiniMax-M1, arXiv:2506.13585; no lower clip and 0.28 as in Trinity; the mask is ROLL's and Trinity's option.
Released code differs: TRL clamps above only and at `epsilon_high` itself, without the "1 +" (ScaleRL's 5.0 is such a
cap: `high: 4.0`); ROLL has 0.1 on both sides.
Odd cases: a ratio beyond the clamp at 20 nats has weight 1 + high or 1 - low. With `low: 1` a token that became
impossible has weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, everywhere, log_ratio, unclipped


@dataclass(frozen=True)
class Cispo:
    """Ratios e^[.4, -.1, .7, .2] with low 1, high .28: W = [1.28, 0.904837, 1.28, 1.221403]."""

    low: float = knob(1.0, "how far the weight may fall below 1; 1 is no lower clip", unit="ratio", ge=0, le=1)
    high: float = knob(0.28, "how far the weight may rise above 1", unit="ratio", ge=0)
    mask: bool = knob(False, "close the tokens that PPO's clip would close (the unified mask)")

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        ratio_NT = log_ratio(logp_NT, batch.prox_NT)[0].exp()
        open_NT = unclipped(ratio_NT, advantage_NT, self.low, self.high) if self.mask else everywhere(ratio_NT)
        return Weighed(ratio_NT.clamp(1 - self.low, 1 + self.high), open_NT)
