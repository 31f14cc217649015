"""Drop the tokens on which trainer and sampler differ most, until the second moment of the rest is small (M2 mask).

    v_t = (prox_t - behaviour_t)^2;    M = 0 for the largest, until mean(v of the kept) < limit, keeping one;    W = 1

Source: AReaL's `m2_threshold`, after M2PO (arXiv:2510.01161): the moment bounds a mask, not a clip.
Odd cases: over the step on all ranks; ties at the threshold stay or go together, so that the cut of the step decides
nothing. Undefined log-ratios count as 20 nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio


@dataclass(frozen=True)
class M2Mask:
    """v = [.0025, .01, .09, .81], limit .04: .81 goes, the mean of the rest is 0.034167."""

    limit: float = knob(0.04, "mean square that is accepted", unit="nats squared", gt=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The largest square that stays, the same number for every rollout."""
        square_NT = log_ratio(batch.prox_NT, batch.behaviour_NT)[0] ** 2
        square_K = torch.cat(batch.world.gather_rows(square_NT[batch.mask_NT][:, None])).flatten()
        return {"m2_most": self.most(square_K).expand(len(batch))}

    def most(self, square_K: Tensor) -> Tensor:
        """The largest of these squares that stays; 0 where there are none."""
        if not len(square_K):
            return square_K.new_zeros(())
        v_K = square_K.sort().values
        mean_K = v_K.cumsum(0) / torch.arange(1, len(v_K) + 1, device=v_K.device)
        last_K = torch.cat([v_K[1:] > v_K[:-1], v_K.new_ones(1, dtype=torch.bool)])
        kept = v_K[(mean_K < self.limit) & last_K]
        return kept[-1] if len(kept) else v_K[0]

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        square_NT = log_ratio(batch.prox_NT, batch.behaviour_NT)[0] ** 2
        return Weighed(torch.ones_like(logp_NT), square_NT <= batch.signals["m2_most"][:, None])
