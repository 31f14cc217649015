"""The median of the group as baseline and its absolute deviation as scale, for small groups (MC-GRPO).

    b = median of the group (lower),   MAD = median |r - b|,   A_i = (r_i - b) / max(MAD + eps, floor)
    rescale: every non-zero A of a group of n is multiplied by n / (how many are non-zero)

Source: MC-GRPO and its released code (`rescale` is the GSM8K script's, the MATH script has none). The paper asks for
G + 1 rollouts and does not train the one that is the median: `select: [median_pivot]` leaves it out.
Odd cases: with binary rewards the MAD is 0 wherever a majority agrees, and |A| = 1 / eps = 1000: `floor` bounds that.
Equal rewards and a group of one get 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import group_median
from services.learning.batch import Batch
from services.learning.reduce import group_size, group_sum


@dataclass(frozen=True)
class McGrpo:
    """[.1, .4, .5, .9, 1]: median .5, MAD .401 with eps, A = [-.997506, -.249377, 0, .997506, 1.246883]."""

    eps: float = knob(1e-3, "added to the deviation", unit="reward", ge=0)
    floor: float = knob(0.0, "smallest scale (the paper has none)", unit="reward", ge=0)
    rescale: bool = knob(False, "give a group's non-zero advantages the weight of all its rollouts")

    __post_init__ = check

    z_score: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> Tensor:
        median_N, _ = group_median(batch, batch.reward_N)
        above_N = batch.reward_N - median_N
        scale_N = (group_median(batch, above_N.abs())[0] + self.eps).clamp(min=self.floor)
        advantage_N = torch.where(above_N == 0, torch.zeros_like(above_N), above_N / scale_N)
        if not self.rescale:
            return advantage_N
        live_N = group_sum(batch, (advantage_N != 0).to(advantage_N.dtype)).clamp(min=1)
        return advantage_N * group_size(batch) / live_N
