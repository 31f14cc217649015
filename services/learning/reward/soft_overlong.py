"""A penalty that grows as an answer comes near the length limit (DAPO's soft overlong punishment).

    r_i += min(-(len_i - (L_max - buffer)) / buffer * factor, 0)

Source: DAPO, arXiv:2503.14476, and its released reward manager. L_max is the run's limit of sampled tokens.
Odd case: it can make an all-correct or all-wrong group informative, so group filters look at accuracy, not at this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch


@dataclass(frozen=True)
class SoftOverlong:
    """
    >>> SoftOverlong(buffer=4096).penalty(torch.tensor([16000, 16384, 18432, 20480]), 20480).tolist()
    [0.0, 0.0, -0.5, -1.0]
    """

    buffer: float = knob(0.2, "length of the ramp: tokens when above 1, else a share of L_max", gt=0)
    factor: float = knob(1.0, "penalty at L_max", unit="reward", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        return reward_N + self.penalty(batch.length_N, batch.max_tokens).to(reward_N.dtype)

    def penalty(self, length_N: Tensor, longest: int) -> Tensor:
        """Non-positive, [N]. DAPO's 4,096 of 20,480 is the default's share."""
        buffer = self.buffer if self.buffer > 1 else self.buffer * longest
        over_N = (length_N - (longest - buffer)).clamp(min=0)
        return -over_N / buffer * self.factor if over_N.any() else torch.zeros_like(over_N, dtype=torch.float)
