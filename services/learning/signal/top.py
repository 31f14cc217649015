"""The likeliest next tokens at each sampled token, under the policy before the step: "top_ids" and "top_logp".

    K = the likelihood's `top`;  [N, T, K], likeliest first, at the temperature of the token

Source: CAPO ("Stabilizing Policy Gradients", stable-pg-llm) reads the policy through its top-k.
Odd case: a vocabulary smaller than K is given whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class Top:
    """
    >>> sorted(Top.reads)
    ['top']
    """

    reads: ClassVar[frozenset[str]] = frozenset({"top"})

    def __call__(self, batch: Batch, score: Score) -> dict[str, Tensor]:
        found = score("policy").signals
        return {"top_ids": found["top_ids"], "top_logp": found["top_logp"]}
