"""How concentrated the policy is at each sampled token, before the step: the chance that two draws are the same.

    c_t = sum_v p_v^2    at the temperature of the token

With it, 1 - 2 p(y_t) + c_t is the squared norm of the score of the token in the logits, d log p(y_t) / d z.

Source: verl's `sum_pi_squared`, for the optimal token baseline.
Odd case: 0 on padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class Collision:
    """p = [.5, .25, .25]: 0.375."""

    reads: ClassVar[frozenset[str]] = frozenset({"collision"})

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").signals["collision"]
