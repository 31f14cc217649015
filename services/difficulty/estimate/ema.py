"""Exponential moving average of accuracy: the plainest tracker, for comparison.

    v <- v + r * (accuracy - v),   s <- (1 - r)^2 * s + r^2,   r = rate * lag_discount ** lag

s is the sum of squared weights behind v, so 1 / s is its effective number of observations (Kish): 1 at the start,
(2 - rate) / rate in the long run. Read as pseudo-counts: alpha = v / s, beta = (1 - v) / s.

Odd case: it knows no steps; a prompt not visited is believed as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.state import OneByOne, Stat, powers


@dataclass(frozen=True)
class Ema(OneByOne):
    """A moving average per prompt.

    Worked number: 0.5 + 0.1 * (1 - 0.5) = 0.55, and 1 / (0.81 + 0.01) = 1.22 observations.

    >>> from services.difficulty.state import Observation
    >>> stat = Ema()(Ema().initial(), Observation(1.0), step=1)
    >>> round(stat.values[0], 6), round(1 / stat.values[1], 2)
    (0.55, 1.22)
    """

    rate: float = knob(0.1, "Weight of the newest outcome.", gt=0, lt=1)
    prior: float = knob(0.5, "Value of a prompt never seen.", gt=0, lt=1)
    lag_discount: float = knob(1.0, "What a version of lag takes of an outcome's weight; 1 ignores lag.", gt=0, le=1)

    columns: ClassVar[tuple[str, ...]] = ("value", "squared_weights")
    confidence: ClassVar[str] = "standard"
    __post_init__ = check

    def initial(self) -> Stat:
        """The prior, worth one observation."""
        return Stat((self.prior, 1.0))

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """Move towards the outcome."""
        value_P, squares_P = values_PK.T
        rate_P = self.rate * powers(self.lag_discount, lag_P)
        kept_P = 1.0 - rate_P
        value_P = value_P + rate_P * (accuracy_P - value_P)
        return np.stack((value_P, kept_P * kept_P * squares_P + rate_P * rate_P), axis=1)

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P)."""
        value_P, squares_P = values_PK.T
        return value_P / squares_P, (1.0 - value_P) / squares_P
