"""Truncated importance sampling whose weights average 1 over the step: the correction leaves the rate alone.

    W = w / mean(w),    w = min(rho, cap) as in `tis`
    token: mean over the step's trained tokens;   sequence: mean over its rollouts

Source: verl's rollout correction (`rollout_is_batch_normalize`), which divides after truncating.
Odd cases: of the step on all ranks, never of a micro-batch. A step without a trained token is not normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, everywhere
from services.learning.weight.tis import truncated


@dataclass(frozen=True)
class TisNormalized:
    """rho [1.105171, .904837, 2.225541, 1 | .904837, 1.221403, .332871], cap 2, token: W of the first 1.035757."""

    cap: float = knob(2.0, "largest weight before the division", unit="ratio", gt=0)
    level: str = knob("token", "one weight per token or per rollout", choices=("token", "sequence"))
    of: str = knob("prox", "whose probability is in the numerator", choices=("prox", "policy"))

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """What the weights are divided by, the same number for every rollout."""
        top_NT = batch.signals["step_logp"] if self.of == "policy" else batch.prox_NT
        weight_NT = truncated(batch, top_NT, self.cap, self.level)
        mask_NT = batch.mask_NT if self.level == "token" else batch.mask_NT.any(1, keepdim=True)
        kept_NT = torch.where(mask_NT, weight_NT, torch.zeros_like(weight_NT))
        total, count = batch.world.sum(torch.stack([kept_NT.sum(), mask_NT.sum().to(kept_NT.dtype)]))
        divisor = torch.where(count > 0, total / count.clamp(min=1), torch.ones_like(total))
        return {"tis_divisor": divisor.expand(len(batch))}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        weight_NT = truncated(batch, logp_NT if self.of == "policy" else batch.prox_NT, self.cap, self.level)
        return Weighed(weight_NT / batch.signals["tis_divisor"][:, None], everywhere(weight_NT))
