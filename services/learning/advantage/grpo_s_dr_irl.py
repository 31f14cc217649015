"""Prompts weigh by how hard their data is and how far the policy is from a good answer (GRPO-S of DR-IRL).

    A_i *= h_q / mean_q h * m_q / mean_q m,    h = 1 - similarity,   m = sigmoid(-gap)

Source: DR-IRL, arXiv:2503.18991: the abstract's idea; the formula, and the sign of the gap, are a guess. `similarity`
(of the prompt to its references) and `gap` (reward of a good answer minus this one) are raw rewards of the verdict; a
group's is the mean of its members'. It multiplies the advantage: on the reward a group's z-score would cancel it.
Odd cases: a prompt that lacks either has that factor 1. Not the GRPO-S of GTPO (sequence entropy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_mean, named, per_group
from services.learning.batch import Batch
from services.learning.reduce import group_sum, per_token, step_moments


@dataclass(frozen=True)
class GrpoSDrIrl:
    """similarity [.9, .6], gap [.2, 1.5]: h = [.4, 1.6], m = [1.423244, .576756], product [.569298, .922810]."""

    similarity: str = knob("similarity", "raw reward with the similarity, in [0, 1]")
    gap: str = knob("gap", "raw reward with the reward gap")

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        return advantage * per_token(self.weight(batch), advantage)

    def weight(self, batch: Batch) -> Tensor:
        """Factor of each rollout's prompt, [N]. Collective."""
        hard_N = self._relative(batch, named(batch, self.similarity), lambda x_N: 1 - x_N)
        return hard_N * self._relative(batch, named(batch, self.gap), lambda x_N: torch.sigmoid(-x_N))

    def _relative(self, batch: Batch, raw_N: Tensor, transform) -> Tensor:
        known_N = ~raw_N.isnan()
        told_N = group_sum(batch, known_N.to(raw_N.dtype)) > 0
        value_N = transform(masked_mean(batch, raw_N, known_N))
        value_G, told_G = per_group(batch, value_N), per_group(batch, told_N.to(raw_N.dtype))
        mean, _ = step_moments(batch, value_G, told_G, 1)
        return torch.where(told_N & (mean != 0), value_N / mean, torch.ones_like(value_N))
