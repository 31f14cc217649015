"""A virtual perfect answer joins every group, so that a group of wrong ones still teaches (NGRPO).

    mean, std of [r_1 .. r_G, r_max x virtual] (unbiased),   A_i = (r_i - mean) / (std + eps)

Source: NGRPO, arXiv:2509.18851, and its released code; it goes with a clip of .16 below and .24 above.
Odd cases: an all-perfect group gets 0 (the released code leaves it out of the batch). A group of one is raw there
(`singleton: raw`); `virtual` compares it with the virtual answer. The real A sum below 0: a net push down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_size, group_sum


@dataclass(frozen=True)
class Ngrpo:
    """[0, 0, 0, 0]: -0.447213 each; [1, 0, 0, 0]: [1.095443, -0.730295, -0.730295, -0.730295]; all 1: 0."""

    r_max: float = knob(1.0, "reward of the virtual answer", unit="reward")
    virtual: int = knob(1, "virtual answers per group", unit="rollouts", ge=1)
    eps: float = knob(1e-6, "added to the std", unit="reward", ge=0)
    singleton: str = knob("raw", "what a group of one gets", choices=("raw", "virtual"))

    __post_init__ = check

    conflicts: ClassVar[dict[str, str]] = {
        "select.informative_groups": "groups of wrong answers, which NGRPO is for, would be left out",
    }

    def __call__(self, batch: Batch) -> Tensor:
        reward_N, size_N = batch.reward_N, group_size(batch) + self.virtual
        mean_N = (group_sum(batch, reward_N) + self.virtual * self.r_max) / size_N
        square_N = group_sum(batch, (reward_N - mean_N) ** 2) + self.virtual * (self.r_max - mean_N) ** 2
        std_N = (square_N / (size_N - 1)).sqrt()
        advantage_N = torch.where(std_N > 1e-12, (reward_N - mean_N) / (std_N + self.eps), torch.zeros_like(reward_N))
        if self.singleton == "virtual":
            return advantage_N
        return torch.where(size_N == 1 + self.virtual, reward_N / (1 + self.eps), advantage_N)
