"""A bonus for entropy, against early collapse.

    loss -= coef * sum_t H_t / (trained tokens),    H_t over the whole vocabulary, with a gradient

Source: A3C, arXiv:1602.01783; 0.001 in 1-shot RLVR's runs.
Odd case: a negative coefficient sharpens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.regularizer import token_mean


@dataclass(frozen=True)
class Entropy:
    """Two tokens of entropy 0.5 and 0.7 at coef 0.1: loss -0.06."""

    coef: float = knob(0.001, "strength", unit="per nat")

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        return -self.coef * token_mean(batch, forward.signals["entropy"], batch.mask_NT)
