"""Rule, model, aspects and length in one reward (HARMO's hybrid, multi-aspect reward).

    r = rule * r0 + model * m + adherence * a + format * f + length * P(len)
    P = 0 for low <= len <= high, else -min(1, distance to the nearer bound / that bound)

Source: "Beyond Monolithic Rewards" (HARMO), arXiv:2510.05283: the abstract's parts; weights and the penalty's shape are
a guess. r0 is the reward so far; m, a and f are the raw rewards `model`, `adherence` and `format`.
Odd cases: a part that a verdict lacks counts as 0. Keep the sum of the other weights below the gap between right and
wrong, so that the rule decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reward._named import component


@dataclass(frozen=True)
class Hybrid:
    """Bounds 100, 400: lengths 20, 100, 600, 2000 have P = -.8, 0, -.5, -1; .5 * .8 + 1 + .2 - .2 * .5 = 1.5."""

    rule: float = knob(1.0, "weight of the reward so far", ge=0)
    model: float = knob(0.5, "weight of a model's score", ge=0)
    adherence: float = knob(0.2, "weight of following instructions", ge=0)
    format: float = knob(0.2, "weight of the format", ge=0)
    length: float = knob(0.2, "weight of the length penalty", ge=0)
    low: float = knob(0.0, "shortest length without penalty: tokens when above 1, else a share of L_max", ge=0)
    high: float = knob(0.8, "longest length without penalty: tokens when above 1, else a share of L_max", gt=0)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        parts = {"reward": self.rule, "model": self.model, "adherence": self.adherence, "format": self.format}
        total_N = sum(weight * component(batch, name, reward_N) for name, weight in parts.items())
        penalty_N = self.penalty(batch.length_N, batch.max_tokens).to(total_N.dtype)
        return torch.where(reward_N.isnan(), reward_N, total_N + self.length * penalty_N)

    def penalty(self, length_N: Tensor, longest: int) -> Tensor:
        """P, [N], in [-1, 0]."""
        low, high = (bound if bound > 1 else bound * longest for bound in (self.low, self.high))
        under_N = (low - length_N).clamp(min=0) / max(low, 1)
        return -torch.maximum(under_N, (length_N - high).clamp(min=0) / max(high, 1)).clamp(max=1)
