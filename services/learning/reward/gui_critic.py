"""A critic is paid for its form, its verdict, and a suggestion that is right (S-GRPO of GUI-Critic-R1).

    r = w_f format + w_v verdict + w_s suggestion * verdict

Source: GUI-Critic-R1, arXiv:2506.04614: the three rewards; their weights are a guess. The verdict's reward is the
reward so far; `format` and `suggestion` (is it the gold action?) are raw rewards.
Odd cases: a suggestion under a wrong verdict is not paid. A reward that a verdict lacks counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reward._named import component


@dataclass(frozen=True)
class GuiCritic:
    """(format, verdict, suggestion) (1, 1, 1): 1.6; (1, 1, 0): 1.1; (1, 0, 0) and (1, 0, 1): .1."""

    format: float = knob(0.1, "weight of the format", unit="reward", ge=0)
    verdict: float = knob(1.0, "weight of the verdict", unit="reward", ge=0)
    suggestion: float = knob(0.5, "weight of the suggestion", unit="reward", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        format_N, suggestion_N = (component(batch, name, reward_N) for name in ("format", "suggestion"))
        right_N = (reward_N > 0).to(reward_N.dtype)
        total_N = self.format * format_N + self.verdict * reward_N + self.suggestion * suggestion_N * right_N
        return torch.where(reward_N.isnan(), reward_N, total_N)
