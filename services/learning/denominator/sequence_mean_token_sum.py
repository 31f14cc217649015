"""Every rollout's tokens are summed, the rollouts averaged: the plain policy gradient of a whole answer.

    loss = mean_i sum_t x_it

Source: REINFORCE; RLOO, arXiv:2402.14740 (verl "seq-mean-token-sum").
Odd case: a rollout without a trained token contributes 0 and still counts as a rollout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch


@dataclass(frozen=True)
class SequenceMeanTokenSum:
    """x [[1, 2, 3, 4], [10]]: (10 + 10) / 2 = 10."""

    shrink: bool = knob(False, "whether rollouts that weight parts left without a token leave the mean")

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        return batch.behaviour_NT.new_full((1, 1), 1 / max(batch.denominators.rows, 1.0))
