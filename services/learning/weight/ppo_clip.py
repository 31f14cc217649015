"""PPO's clipped ratio, with separate bounds (clip-higher) and the dual clip.

    ratio = exp(clamp(logp - prox, -20, 20)),   W = ratio,   M = 1 unless
        A > 0 and ratio > 1 + high,   A < 0 and ratio < 1 - low,   A < 0 and ratio > dual

which is -d/dlogp of  max(-A ratio, -A clip(ratio, 1 - low, 1 + high)), for A < 0 also min(., -A dual).

Source: PPO, arXiv:1707.06347; dual clip arXiv:1912.09729 (verl: 3; DAPO: 10); clip-higher DAPO, arXiv:2503.14476.
`prox` is the recipe's: the behaviour policy itself (coupled) or the policy at the start of the step (decoupled).
Odd cases: beyond the clamp at 20 nats the loss is flat, so M = 0. `cap` truncates W (not the loss): a token inside
the clip whose ratio is above it pulls with `cap` only; the paper has none.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio, unclipped


@dataclass(frozen=True)
class PpoClip:
    """(A, ratio) = (1, 1.5), (1, .5), (-1, 1.5), (-1, .5), (-1, 20) at .2, dual 3: coef 0, .5, -1.5, 0, 0."""

    low: float = knob(0.2, "how far the ratio may fall below 1", unit="ratio", ge=0, le=1)
    high: float = knob(0.2, "how far the ratio may rise above 1 (DAPO: 0.28)", unit="ratio", ge=0)
    dual: float | None = knob(3.0, "largest ratio that still pulls where A < 0; null disables", unit="ratio", gt=1)
    cap: float | None = knob(None, "largest weight; null disables", unit="ratio", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT = log_NT.exp()
        mask_NT = inside_NT & unclipped(ratio_NT, advantage_NT, self.low, self.high)
        if self.dual is not None:
            mask_NT = mask_NT & ~((advantage_NT < 0) & (ratio_NT > self.dual))
        return Weighed(ratio_NT.clamp(max=self.cap) if self.cap is not None else ratio_NT, mask_NT)
