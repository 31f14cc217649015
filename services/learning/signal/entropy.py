"""Entropy of the policy at each sampled token, before the step, for advantages and selections that read it.

    H_t = -sum_v p_v log p_v    nats, at the temperature of the token

Source: used by many methods (GTPO, EMPG, D3S). The entropy bonus takes its own, with a gradient.
Odd case: a regularizer that needs "entropy" gets the forward pass's own, not this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class Entropy:
    """
    >>> Entropy()
    Entropy()
    """

    reads: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").signals["entropy"]
