"""Entropy of the policy at each sampled token, for regularizers that must know the whole step's mean beforehand.

    H_t = -sum_v p_v log p_v    nats, at the temperature of the token, without a gradient

Source: targeted entropy regularization (Confucius3-Math) pulls one way or the other by the mean of the step.
Odd case: the same numbers as the signal `entropy`; a regularizer that needs "entropy" gets its own, with a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class StepEntropy:
    """
    >>> sorted(StepEntropy.reads)
    ['entropy']
    """

    reads: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").signals["entropy"]
