"""Right answers that the policy found unlikely count more (XRPO's novelty).

    s_i = mean behaviour log-prob,   eta_i = exp(s_i - mean s of the group)
    right and A > 0:   A_i += min(max(lambda (1 - eta_i), 0), kappa A_i)

Source: XRPO, arXiv:2510.06672, in the form of a third party's code; that code takes kappa |A|, which would lift wrong
answers too, so only A > 0 is raised here.
Odd cases: a group of one, and an answer as likely as the mean, are unchanged. Rollouts without tokens have s = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, per_token, row_mean


@dataclass(frozen=True)
class XrpoNovelty:
    """r [1, 1, 0, 0], s [-.9, -.5, -.5, -.5]: eta [.740818, 1.105171 x 3], A = [1.299036 (capped), .866024, ...]."""

    strength: float = knob(2.5, "lambda: bonus per unit of 1 - eta", ge=0)
    cap: float = knob(0.5, "kappa: largest bonus, as a share of A", ge=0)
    right: float = knob(0.5, "accuracy above which an answer is right", ge=0, lt=1)

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        bonus = per_token((self.strength * (1 - self.novelty(batch))).clamp(min=0), advantage)
        raised = advantage + torch.minimum(bonus, self.cap * advantage)
        return torch.where((advantage > 0) & per_token(batch.accuracy_N > self.right, advantage), raised, advantage)

    def novelty(self, batch: Batch) -> Tensor:
        """eta, [N]: below 1 is less likely than the group."""
        score_N = row_mean(batch.behaviour_NT, batch.mask_NT)
        return (score_N - group_mean(batch, score_N)).exp()
