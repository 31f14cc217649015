"""The whole step is the baseline and the scale, token by token (REINFORCE++).

    ret_t = gamma^(T_i - t) (r_i - b_i),   A_t = (ret_t - mean ret) / sqrt(var ret + eps)   over every trained token
    b = 0, or the mean of the group (`baseline: group`, REINFORCE++-baseline)

Source: REINFORCE++, arXiv:2501.03262; verl `compute_reinforce_plus_plus(_baseline)_outcome_advantage` (unbiased var,
eps 1e-8 inside the root). Statistics are of all ranks; long rollouts weigh more in them.
Odd cases: a group of one keeps its raw reward, as in verl; a step of equal returns gets 0, and so does one token alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import whiten
from services.learning.advantage.group_norm import GroupNorm
from services.learning.batch import Batch
from services.learning.reduce import row_count


@dataclass(frozen=True)
class ReinforcePlusPlus:
    """Lengths 2 and 3, rewards 1 and 0: 1.095445 on both tokens of the first, -0.730297 on the second's."""

    baseline: str = knob("none", "what is subtracted first: none, or the mean of the group", choices=("none", "group"))
    gamma: float = knob(1.0, "discount per token", ge=0, le=1)
    eps: float = knob(1e-8, "added to the variance", unit="reward squared", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        center = "mean" if self.baseline == "group" else "none"
        return_N = GroupNorm(center=center, scale="none", singleton="raw")(batch)
        if self.gamma == 1:
            return whiten(batch, return_N, row_count(batch.mask_NT), self.eps)
        left_NT = batch.length_N[:, None] - 1 - torch.arange(batch.mask_NT.shape[1], device=return_N.device)
        return_NT = return_N[:, None] * self.gamma ** left_NT.clamp(min=0)
        return whiten(batch, return_NT, batch.mask_NT, self.eps)
