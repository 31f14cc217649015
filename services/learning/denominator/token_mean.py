"""Every trained token of the step counts the same.

    loss = sum_it x_it / (trained tokens of the whole step)

Source: DAPO, arXiv:2503.14476 (verl "token-mean").
Odd case: a step without a trained token is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch


@dataclass(frozen=True)
class TokenMean:
    """x [[1, 2, 3, 4], [10]]: 20 / 5 = 4."""

    shrink: bool = knob(False, "whether tokens that a weight part masks leave the denominator (verl's rejection: yes)")

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        return batch.behaviour_NT.new_full((1, 1), 1 / max(batch.denominators.tokens, 1.0))
