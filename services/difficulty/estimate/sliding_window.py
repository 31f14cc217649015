"""The newest outcomes and no others: plain counts over a window.

    alpha = prior + right among the newest `size` outcomes,   beta = prior + wrong among them

Source: the common choice where pass rates drift (GDRO bins by a window of bits in the same way).

Odd cases. An outcome of at least 0.5 counts as right, any other as wrong: the window is kept as bits of one number, 16
bytes per prompt, so it holds at most 52. A bit has no weight, so there is no `lag_discount`: an outcome that lags
counts as any other. A prompt left alone is believed as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.state import OneByOne, Stat


@dataclass(frozen=True)
class SlidingWindow(OneByOne):
    """Counts over a window.

    Worked number: of right, wrong, right, right a window of 3 holds two right and one wrong.

    >>> from services.difficulty.state import Observation
    >>> window, stat = SlidingWindow(size=3), SlidingWindow(size=3).initial()
    >>> for accuracy in (1, 0, 1, 1):
    ...     stat = window(stat, Observation(accuracy), step=1)
    >>> [float(each[0]) for each in window.pseudo_counts(np.array([stat.values]), np.array([1]), 1)]
    [3.0, 2.0]
    """

    size: int = knob(16, "Outcomes that count; 16 as the robust mean of Knapsack RL.", unit="outcomes", ge=1, le=52)
    prior: float = knob(1.0, "Pseudo-counts before any outcome, on each side.", gt=0)

    columns: ClassVar[tuple[str, ...]] = ("bits", "outcomes")
    confidence: ClassVar[str] = "standard"
    __post_init__ = check

    def initial(self) -> Stat:
        """Nothing seen."""
        return Stat((0.0, 0.0))

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """The window moves on by one."""
        bits_P = (values_PK[:, 0].astype(np.int64) << 1 | (accuracy_P >= 0.5)) & ((1 << self.size) - 1)
        return np.stack((bits_P.astype(float), np.minimum(values_PK[:, 1] + 1.0, self.size)), axis=1)

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P)."""
        right_P = np.bitwise_count(values_PK[:, 0].astype(np.int64)).astype(float)
        return self.prior + right_P, self.prior + values_PK[:, 1] - right_P
