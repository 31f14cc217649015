"""Drift to ignorance, as BOTS has it: what is not looked at is believed less and less.

    looked at:   alpha <- (1 - forget) * alpha + forget * prior + right,        beta alike with wrong
    left alone:  alpha <- (1 - forget) * alpha + forget * prior + rho * p0 * m, beta alike with 1 - p0

Source: another implementation's difficulty estimator (Trinity-RFT); forget = rho = 0.2 and m = 16 are its defaults.
There an unseen task's evidence is its pass rate interpolated from others; here it is `ignorance` (p0), so a prompt left
alone long enough is believed to pass half the time.

Another departure: there s right of n tries add (1 - rho) * s + rho * (s / n) * m; here they add s, the same at n = m.
Outcomes come one by one here, and how many more will come is not known. Of n = 8 each weighs 1 here, and there, with
the defaults, 0.8 + 0.2 * 16 / 8 = 1.2.

Odd cases. k steps alone are applied in one go when the prompt is touched or looked at: with q = (1 - forget) ** k,
alpha <- prior + q * (alpha - prior) + rho * p0 * m * (1 - q) / forget. Outcomes that arrive at one step decay once. A
step older than the last one (after a rewind) changes nothing but the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.state import OneByOne, Stat, powers


@dataclass(frozen=True)
class Bots(OneByOne):
    """Pseudo-counts of right and wrong answers that drift.

    Worked number: 12 of 16 right give (13, 5); a step alone gives (2.6, 2.6).

    >>> from services.difficulty.state import Observation
    >>> bots, stat = Bots(), Bots().initial()
    >>> for accuracy in [1] * 12 + [0] * 4:
    ...     stat = bots(stat, Observation(accuracy), step=1)
    >>> [round(value, 6) for value in stat.values]
    [13.0, 5.0]
    >>> [round(float(a[0]), 6) for a in bots.pseudo_counts(np.array([[1.0, 1.0]]), np.array([0]), 1)]
    [2.6, 2.6]
    """

    forget: float = knob(0.2, "Share of the evidence that a step takes.", gt=0, lt=1)
    rho: float = knob(0.2, "Weight of the ignorant evidence of a step alone.", ge=0, le=1)
    m: float = knob(16.0, "Size of that evidence.", unit="rollouts", ge=0)
    ignorance: float = knob(0.5, "Pass rate of a prompt left alone.", gt=0, lt=1)
    prior: float = knob(1.0, "Pseudo-counts before any outcome, on each side.", gt=0)
    lag_discount: float = knob(1.0, "What a version of lag takes of an outcome's weight; 1 ignores lag.", gt=0, le=1)

    columns: ClassVar[tuple[str, ...]] = ("alpha", "beta")
    confidence: ClassVar[str] = "implementation"
    __post_init__ = check

    def initial(self) -> Stat:
        """The prior."""
        return Stat((self.prior, self.prior))

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """Drift through the steps alone, decay once, count."""
        age_P = np.maximum(step_P - decayed_P, 0)
        alone_PK = self._alone(values_PK, np.maximum(age_P - 1, 0))
        kept_PK = (1.0 - self.forget) * alone_PK + self.forget * self.prior
        before_PK = np.where((age_P > 0)[:, None], kept_PK, values_PK)
        weight_P = powers(self.lag_discount, lag_P)
        return before_PK + np.stack((weight_P * accuracy_P, weight_P * (1.0 - accuracy_P)), axis=1)

    def _alone(self, values_PK: np.ndarray, steps_P: np.ndarray) -> np.ndarray:
        kept_P1 = powers(1.0 - self.forget, steps_P)[:, None]
        drift_K = self.rho * self.m / self.forget * np.array((self.ignorance, 1.0 - self.ignorance))
        return self.prior + kept_P1 * (values_PK - self.prior) + (1.0 - kept_P1) * drift_K

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P) with the drift up to `step`."""
        alpha_P, beta_P = self._alone(values_PK, np.maximum(step - decayed_step_P, 0)).T
        return alpha_P, beta_P
