"""Damp what is trained on again and again: value smoothing (VSPO).

    A_i <- A_i / sqrt(c_i),        c_i: how often the rollout has been trained on, this use counted

Source: VSPO, arXiv:2512.07478, by a summary, which says that without smoothing training collapses; the form is a guess
(c there counts copies of a prompt in the batch, here uses of a rollout, which is what comes back).
Odd case: at its first use an advantage stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token


@dataclass(frozen=True)
class ValueSmoothing:
    """A = [1.2, -0.8], c = 3: [0.692820, -0.461880]."""

    power: float = knob(0.5, "of c, by which the advantage is divided; a guess", ge=0)

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        count_N = batch.use_N.clamp(min=1).to(advantage.dtype) ** self.power
        return advantage / per_token(count_N, advantage)
