"""Steps that the policy was sure of count more, and leading to a sure step is rewarded (EMPG).

    H_s = mean token entropy of a step (a call);    h = (H - min) / (max - min + eps) over every step of the batch
    g = e^(-k h) / mean e^(-k h),    f = e^(-k' h)
    A_s = A_i g_s + bonus f_(s+1)  (no bonus at the last step),    then minus the mean of A_s over all steps

Source: EMPG, arXiv:2509.09265, and its public implementation in ARLArena (bonus 0.05 there, 0.1 in the paper).
Odd cases: min, max and means are over every rank. Equal entropies: h = 0, g = 1. A step without a trained token is
none: it has no entropy, and the step before it no bonus. The paper's pseudo-code scales the whole tensor once per
step; this scales each step once. Whitening afterwards would undo part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token


@dataclass(frozen=True)
class Empg:
    """
    H = [.2, .6, 1 | .2, 1], A = [1 | -1], bonus .1: g = [1.495981, .907358, .550340, 1.495981, .550340],
    A = [1.348316, .735829, .342023, -1.667510, -.758658].
    """

    k: float = knob(1.0, "how much sure steps gain", ge=0)
    k_bonus: float = knob(1.0, "how fast the bonus falls with entropy", ge=0)
    bonus: float = knob(0.1, "reward for leading to a sure step", unit="advantage", ge=0)
    eps: float = knob(1e-8, "added to the range of the entropies", unit="nats", ge=0)

    __post_init__ = check

    modifies: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        entropy_NT = batch.signals["entropy"].to(advantage.dtype)
        if not entropy_NT.shape[1]:
            return per_token(advantage, entropy_NT).expand_as(entropy_NT)
        advantage_NT = per_token(advantage, entropy_NT).expand_as(entropy_NT)
        entropy_NC, is_NC = _by_call(batch, entropy_NT)
        h_NC = self._scaled(batch, entropy_NC, is_NC)
        sure_NC = (-self.k * h_NC).exp()
        g_NC = sure_NC / _mean(batch, sure_NC, is_NC)
        after_NC = torch.nn.functional.pad((-self.k_bonus * h_NC).exp() * is_NC, (0, 1))[:, 1:]
        step_NC = _by_call(batch, advantage_NT)[0] * g_NC + self.bonus * after_NC
        found_NT = advantage_NT * g_NC.gather(1, batch.call_NT) + self.bonus * after_NC.gather(1, batch.call_NT)
        return (found_NT - _mean(batch, step_NC, is_NC)) * batch.mask_NT

    def _scaled(self, batch: Batch, entropy_NC: Tensor, is_NC: Tensor) -> Tensor:
        low = -batch.world.max((-entropy_NC).masked_fill(~is_NC, -torch.inf).max())
        high = batch.world.max(entropy_NC.masked_fill(~is_NC, -torch.inf).max())
        h_NC = ((entropy_NC - low) / (high - low + self.eps)).nan_to_num()
        return torch.where(is_NC, h_NC, torch.zeros_like(h_NC))


def _by_call(batch: Batch, x_NT: Tensor) -> tuple[Tensor, Tensor]:
    """(mean of `x_NT` over the trained tokens of each call, whether it has any), [N, calls]."""
    start_NC = x_NT.new_zeros((len(x_NT), int(batch.call_NT.max()) + 1))
    count_NC = start_NC.scatter_add(1, batch.call_NT, batch.mask_NT.to(x_NT.dtype))
    total_NC = start_NC.scatter_add(1, batch.call_NT, torch.where(batch.mask_NT, x_NT, torch.zeros_like(x_NT)))
    return total_NC / count_NC.clamp(min=1), count_NC > 0


def _mean(batch: Batch, x_NC: Tensor, is_NC: Tensor) -> Tensor:
    """Mean over every step of the batch on all ranks."""
    total, count = batch.world.sum(torch.stack([(x_NC * is_NC).sum(), is_NC.sum().to(x_NC.dtype)]))
    return total / count.clamp(min=1)
