"""Rollouts above their group's mean are trusted more, those below less (AP-GRPO's advantage-preference weight).

    A_i *= 1 + k (r_i - mean)

Source: "Annotation-Free Visual Reasoning" (HART), arXiv:2602.23615, eq. 4 to 6, on (r - mean) / std. The paper's KL
term is weighed by 1 - k (r_i - mean): the regularizer `kl` with `preference: k`.
Odd cases: equal rewards: weight 1, and A is 0. For k > 1 a weight may be negative; k is at most 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, per_token


@dataclass(frozen=True)
class ApGrpo:
    """r [1, 0, 0, 1]: weights [1.3, .7, .7, 1.3], times A of +-.866025: [1.125833, -.606218, -.606218, 1.125833]."""

    k: float = knob(0.6, "strength (ablations: .15, .3)", unit="per reward", ge=0, le=1)

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        above_N = batch.reward_N - group_mean(batch, batch.reward_N)
        return advantage * per_token(1 + self.k * above_N, advantage)
