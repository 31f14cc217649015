"""Every rollout counts the same, and inside it every token.

    loss = mean_i ( sum_t x_it / len_i )

Source: GRPO, arXiv:2402.03300 (verl "seq-mean-token-mean"). Dr. GRPO shows that it favours short correct
answers and long wrong ones.
Odd case: a rollout without a trained token contributes 0 and still counts as a rollout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch


@dataclass(frozen=True)
class SequenceMeanTokenMean:
    """x [[1, 2, 3, 4], [10]]: (2.5 + 10) / 2 = 6.25."""

    shrink: bool = knob(False, "whether tokens that a weight part masks leave len_i, and rollouts left empty the mean")

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        length_N = batch.mask_NT.sum(1, keepdim=True).clamp(min=1).to(batch.behaviour_NT.dtype)
        return 1 / (length_N * max(batch.denominators.rows, 1.0))
