"""Positive advantages are damped while accuracy is low; weight moves from easy to hard prompts as it grows (A-GRAE).

    A = omega/2 A0 / sqrt(p) + (1 - omega)/2 A0 / sqrt(1 - p),   then A > 0:  A *= min(1, omega / alpha)
    p: mean accuracy of the group,   omega: mean accuracy of the step

Source: A-GRAE, eq. 11 to 13, on top of GRPO's or Dr. GRPO's A0. The released code differs (`form: code`): its second
denominator is 1 - sqrt(p) + 1e-6, its first sqrt(p) + 1e-6, its omega the mean of the groups' means.
Odd cases: a group all right or all wrong keeps A0 (0 unless the reward is shaped); the code divides it by 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import prompt_moments, step_mean
from services.learning.batch import Batch
from services.learning.reduce import group_mean, per_token


@dataclass(frozen=True)
class AGrae:
    """[1, 0, 0, 0], omega .4: [.447845, -.373204 x 3]; as the code has it [.599998, -.499998 x 3]."""

    alpha: float = knob(1.0, "step accuracy from which positive advantages are whole (geo3k, medical: .5)", gt=0)
    form: str = knob("paper", "which denominators", choices=("paper", "code"))

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        p_N = group_mean(batch, batch.accuracy_N)
        if self.form == "code":
            omega = prompt_moments(batch, p_N, 1)[0]
            easy_N, hard_N = p_N.sqrt() + 1e-6, 1 - p_N.sqrt() + 1e-6
        else:
            omega = step_mean(batch, batch.accuracy_N)
            easy_N, hard_N = p_N.sqrt(), (1 - p_N).clamp(min=0).sqrt()
        open_N = (p_N > 0) & (p_N < 1)
        factor_N = omega / 2 / easy_N + (1 - omega) / 2 / hard_N
        factor_N = torch.where(open_N, factor_N, torch.ones_like(factor_N))
        found = advantage * per_token(factor_N, advantage)
        return torch.where(found > 0, found * (omega / self.alpha).clamp(max=1), found)
