"""The last hidden state in front of each sampled token, for parts that look at the output layer itself (CAPO).

    h_t [D]:  logits_t = W h_t

Source: "Stabilizing Policy Gradients for Sample-Efficient RL in LLM Reasoning" (CAPO).
Odd case: held for the whole step, tokens times width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class Hidden:
    """
    >>> sorted(Hidden.reads)
    ['hidden']
    """

    reads: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").signals["hidden"]
