"""Log-probs of the sampled tokens under a colder and a hotter copy of the policy, before the step, [N, T, 2].

    z_t[y_t] / (tau_t T') - logsumexp(z_t / (tau_t T'))    T' = cold, hot;  tau_t the token's own temperature

Source: DCPO (distribution-centric policy optimisation), which scores with 0.8 and 1.2. The temperatures are the
likelihood's knobs `cold` and `hot`.
Odd case: 0 on padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class TemperedLogp:
    """
    >>> sorted(TemperedLogp.reads)
    ['tempered']
    """

    reads: ClassVar[frozenset[str]] = frozenset({"tempered"})

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").signals["tempered"]
