"""Rollouts that are too like one of opposite sign count less, so that gradients do not fight (DaGRPO).

    w_i = share of the rollouts of opposite sign in the group with |q_i - q_j| >= delta,   A_i *= w_i

Source: DaGRPO, arXiv:2512.06337: the abstract's idea; every formula is a guess. q is a fine-grained raw reward
(a judge's); `quality: logprob` takes the mean behaviour log-prob. Anchors for failed groups are a matter of replay.
Odd cases: without a rollout of opposite sign, or where q is not known of i or of all others, w = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import named, pad, unpad
from services.learning.batch import Batch
from services.learning.reduce import per_token, row_mean


@dataclass(frozen=True)
class Dagrpo:
    """r [1, 1, 0, 0], q [.9, .5, .45, .1]: w = [1, .5, .5, 1], A w = [.866024, .433012, -.433012, -.866024]."""

    delta: float = knob(0.2, "least difference of two that are distinct", unit="of q", ge=0)
    quality: str = knob("logprob", "raw reward that q is, or logprob")

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        row_N = advantage if advantage.dim() == 1 else row_mean(advantage, batch.mask_NT)
        return advantage * per_token(self.weight(batch, row_N).to(advantage.dtype), advantage)

    def weight(self, batch: Batch, advantage_N: Tensor) -> Tensor:
        """w, [N]."""
        known = self.quality != "logprob"
        quality_N = named(batch, self.quality) if known else row_mean(batch.behaviour_NT, batch.mask_NT)
        sign_N = torch.where(quality_N.isnan(), torch.zeros_like(advantage_N), advantage_N.sign())
        sign_GM, quality_GM = pad(batch, sign_N), pad(batch, quality_N.nan_to_num(nan=0.0))
        opposite_GMM = sign_GM[:, :, None] * sign_GM[:, None, :] < 0
        apart_GMM = (quality_GM[:, :, None] - quality_GM[:, None, :]).abs() >= self.delta
        count_GM = opposite_GMM.sum(2)
        share_GM = (opposite_GMM & apart_GMM).sum(2) / count_GM.clamp(min=1)
        return unpad(batch, torch.where(count_GM > 0, share_GM, torch.ones_like(share_GM)))
