"""More weight for what is hard for this policy: a line in the group's mean reward (Confucius3-Math's PSHW).

    A_i *= slope * mean + intercept,    mean: of the group's rewards in {-1, 1}

Source: Confucius3-Math's report, eq. 1 to 3 (policy-specific hardness weighting), on r - mean without a std.
Odd cases: with rewards in {0, 1} the line is another one; the recipe gives -1 for a wrong answer. The weight acts after
the baseline: a weight on the reward before a z-score would cancel. Range 1.512 (all wrong) to 1 (all right).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, per_token


@dataclass(frozen=True)
class Pshw:
    """R = [1, -1, -1, -1]: mean -.5, weight 1.384, A = [2.076, -.692, -.692, -.692]."""

    slope: float = knob(-0.256, "change of the weight per unit of mean reward")
    intercept: float = knob(1.256, "weight at mean reward 0")

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        return advantage * per_token(self.slope * group_mean(batch, batch.reward_N) + self.intercept, advantage)
