"""Group-relative REINFORCE as an off-policy method: which tokens are kept, and how they are weighed (REC, RED-Weight).

    r = exp(logp - prox),    s = exp( mean_t (logp_t - prox_t) )
    keep    none: all;   one_side: PPO's clip on r;   sequence_one_side: the same on s
            two_side: 1 - low <= r <= 1 + high
            ring: two_side, or A >= 0 and r <= 1 - far_low, or A <= 0 and r >= 1 + far_high
    weight  none: 1;   ratio: r;   sequence: s;   advantage: e^(A / temperature)   (RED-Weight)

Source: "Group-relative REINFORCE is secretly an off-policy algorithm", arXiv:2509.24203, and Trinity's `rec` loss.
Its importance sampling is `weight: ratio`; its regularizers are the parts `log_ratio_square` and `forward_kl`.
Odd cases: at A = 0 nothing is pulled. Ratios are clamped at 20 nats; with `ratio` such a token is masked. e^(A /
temperature) is clamped at 20 in the exponent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import CLAMP, Weighed, everywhere, log_ratio, row_log_ratio, unclipped


@dataclass(frozen=True)
class Rec:
    """r = [.3, .7, .9, 1.1, 1.5, 4]: one_side at A > 0 keeps the first four; two_side the middle two; ring also .3."""

    keep: str = knob("one_side", "which tokens", choices=("none", "one_side", "two_side", "sequence_one_side", "ring"))
    weight: str = knob("none", "weight of a token", choices=("none", "ratio", "sequence", "advantage"))
    low: float = knob(0.2, "how far the ratio may fall below 1", unit="ratio", ge=0, le=1)
    high: float = knob(0.2, "how far the ratio may rise above 1", unit="ratio", ge=0)
    far_low: float = knob(0.6, "ring: so far below 1 a good token is kept again", unit="ratio", ge=0, le=1)
    far_high: float = knob(2.0, "ring: so far above 1 a bad token is kept again", unit="ratio", ge=0)
    temperature: float = knob(1.0, "of weight: advantage", unit="advantage", gt=0)

    __post_init__ = check

    @property
    def shapes(self) -> str:
        """What becomes of the coefficient where all policies agree."""
        return "good answers weigh e^(A / temperature)" if self.weight == "advantage" else ""

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT = log_NT.exp()
        whole_NT = row_log_ratio(batch, log_NT).exp().expand_as(ratio_NT)
        keep_NT = self._kept(whole_NT if self.keep == "sequence_one_side" else ratio_NT, advantage_NT)
        weights = {
            "none": torch.ones_like(ratio_NT),
            "ratio": ratio_NT * inside_NT,
            "sequence": whole_NT,
            "advantage": (advantage_NT / self.temperature).clamp(-CLAMP, CLAMP).exp(),
        }
        return Weighed(weights[self.weight], keep_NT)

    def _kept(self, ratio_NT: Tensor, advantage_NT: Tensor) -> Tensor:
        if self.keep == "none":
            return everywhere(ratio_NT)
        if self.keep.endswith("one_side"):
            return unclipped(ratio_NT, advantage_NT, self.low, self.high)
        middle_NT = (ratio_NT >= 1 - self.low) & (ratio_NT <= 1 + self.high)
        if self.keep == "two_side":
            return middle_NT
        good_NT = (advantage_NT >= 0) & (ratio_NT <= 1 - self.far_low)
        bad_NT = (advantage_NT <= 0) & (ratio_NT >= 1 + self.far_high)
        return middle_NT | good_NT | bad_NT
