"""A trust region on the second moment of the log-ratio: the clip is only as tight as the step needs (M2PO).

    d_t = prox_t - logp_t;    harmful: A > 0 and ratio > 1,  or  A < 0 and ratio < 1;    M2 = mean d^2 of the harmful
    M2 <= budget: no clip.   Else, with the n harmful squares sorted, v_1 <= ... <= v_n:
        k = the first with  v_1 + ... + v_k + (n - k) v_k >= budget n;    tau = sqrt(v_(k-1)), 0 where k = 1
        low = max(1 - e^-tau, floor_low),    high = max(e^tau - 1, floor_high),    W, M as PPO's clip

Source: "Prosperity before Collapse" (M2PO), arXiv:2510.01161, and its released code: tau is a data value, no root
between two; because of the floors the budget can be exceeded; its solver returns one value where two are unpacked in
the corner cases, which here are no clip.
Odd cases: the moment is of the whole step on all ranks (released: of a micro-batch). No harmful token: no clip.
Beyond the clamp at 20 nats the loss is flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token
from services.learning.weight import Weighed, log_ratio, unclipped


@dataclass(frozen=True)
class M2po:
    """prox 0, logp [.05, .1, .3, .9, -.2], A 1: M2 .228125, tau .1, bounds (.095163, .105171), floored (.3, .5)."""

    budget: float = knob(0.04, "largest second moment", unit="nats squared", ge=0)
    floor_low: float = knob(0.3, "the clip is never tighter below", unit="ratio", ge=0, le=1)
    floor_high: float = knob(0.5, "the clip is never tighter above", unit="ratio", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The log-ratio at which this step clips, infinity for no clip; the same number for every rollout."""
        log_NT, _ = log_ratio(batch.signals["step_logp"], batch.prox_NT)
        advantage_NT = per_token(batch.signals["advantage"], log_NT)
        harmful_NT = batch.mask_NT & (advantage_NT * log_NT > 0)
        square_K = torch.cat(batch.world.gather_rows((log_NT[harmful_NT] ** 2)[:, None])).flatten()
        return {"m2po_tau": threshold(square_K, self.budget).expand(len(batch))}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        tau_N1 = batch.signals["m2po_tau"][:, None]
        low_N1, high_N1 = 1 - (-tau_N1).exp(), tau_N1.exp() - 1
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT = log_NT.exp()
        open_NT = unclipped(
            ratio_NT, advantage_NT, low_N1.clamp(min=self.floor_low), high_N1.clamp(min=self.floor_high)
        )
        return Weighed(ratio_NT, inside_NT & open_NT)


def threshold(square_K: Tensor, budget: float) -> Tensor:
    """The absolute log-ratio to clip at, so that the mean of `square_K` comes to about `budget`; infinity for none."""
    n = len(square_K)
    if n == 0 or square_K.mean() <= budget:
        return square_K.new_tensor(torch.inf)
    v_K = square_K.sort().values
    held_K = v_K.cumsum(0) + torch.arange(n - 1, -1, -1, device=v_K.device) * v_K
    k = int((held_K >= budget * n).nonzero()[0])
    return (v_K[k - 1] - 1e-12).clamp(min=0).sqrt() if k else v_K.new_zeros(())
