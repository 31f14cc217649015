"""CurES's Bayesian estimate: counts since the last reset, with one right and one wrong answer added.

    p = (right + 1) / (tried + 2)

Source: authors' code. There the data is cut into subsets and the counts begin anew with each; here they begin anew
every `reset_every` steps of the learner, when a prompt is next tried (0: never).

Odd case: until a prompt is tried again it is believed as in the period before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.state import OneByOne, Stat, powers


@dataclass(frozen=True)
class CuresBayes(OneByOne):
    """Right and wrong answers of the period.

    Worked number: 0, 1, 2 and 4 of 4 right are 0.166667, 0.333333, 0.5 and 0.833333.

    >>> alpha_P, beta_P = CuresBayes().pseudo_counts(np.array([[0, 4], [1, 3], [2, 2], [4, 0.0]]), np.zeros(4, int), 0)
    >>> (alpha_P / (alpha_P + beta_P)).round(6).tolist()
    [0.166667, 0.333333, 0.5, 0.833333]
    """

    reset_every: int = knob(0, "Length of a period; 0 never begins anew.", unit="steps", ge=0)
    lag_discount: float = knob(1.0, "What a version of lag takes of an outcome's weight; 1 ignores lag.", gt=0, le=1)

    columns: ClassVar[tuple[str, ...]] = ("right", "wrong")
    confidence: ClassVar[str] = "code"
    __post_init__ = check

    def initial(self) -> Stat:
        """Nothing tried."""
        return Stat((0.0, 0.0))

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """Count, from nothing in a new period."""
        if self.reset_every:
            new_P = step_P // self.reset_every > decayed_P // self.reset_every
            values_PK = np.where(new_P[:, None], 0.0, values_PK)
        weight_P = powers(self.lag_discount, lag_P)
        return values_PK + np.stack((weight_P * accuracy_P, weight_P * (1.0 - accuracy_P)), axis=1)

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P)."""
        return values_PK[:, 0] + 1.0, values_PK[:, 1] + 1.0
