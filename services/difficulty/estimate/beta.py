"""Beta posterior per prompt with VADE's two-scale decay (arXiv:2511.18902, abstract; no code found).

    each step, every prompt:            alpha <- a0 + global_decay * (alpha - a0), beta alike
    before fresh counts of one step:    alpha <- a0 + local_decay * (alpha - a0), beta alike
    outcome with accuracy a:            alpha += w * a, beta += w * (1 - a), w = lag_discount ** lag

The paper's counts and its score are sure; that "two-scale prior decay" has this form and these rates is a guess.

Odd cases. Decay over k steps is `a0 + global_decay ** k * (alpha - a0)`, applied in one go when the prompt is touched:
it may differ in the last bit from k single steps, and never between two folds of the same changes. The local decay
happens once per prompt and step: outcomes that arrive at the same step add their counts without decaying each other;
those of a group that straddles a step decay twice. A step older than the last decay (after a rewind) decays nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.state import OneByOne, Stat, powers


@dataclass(frozen=True)
class Beta(OneByOne):
    """Pseudo-counts of right (alpha) and wrong (beta) answers.

    Worked number: (3, 3), one step later 6 of 8 are right.

    >>> from services.difficulty.state import Observation
    >>> beta, stat = Beta(), Stat((3.0, 3.0), decayed_step=0)
    >>> for accuracy in [1, 1, 1, 1, 1, 1, 0, 0]:
    ...     stat = beta(stat, Observation(accuracy), step=1)
    >>> [round(value, 3) for value in stat.values]
    [8.584, 4.584]
    """

    prior_alpha: float = knob(1.0, "Right answers before any outcome, as pseudo-counts.", gt=0)
    prior_beta: float = knob(1.0, "Wrong answers before any outcome; 1 and 1 is uniform.", gt=0)
    global_decay: float = knob(0.99, "Share of the evidence that a step keeps; 1 forgets nothing. A guess.", gt=0, le=1)
    local_decay: float = knob(0.8, "Share kept before fresh counts; 1 forgets nothing. A guess.", gt=0, le=1)
    lag_discount: float = knob(1.0, "What a version of lag takes of an outcome's weight; 1 ignores lag.", gt=0, le=1)

    columns: ClassVar[tuple[str, ...]] = ("alpha", "beta")
    confidence: ClassVar[str] = "guess"
    __post_init__ = check

    def initial(self) -> Stat:
        """The prior."""
        return Stat((self.prior_alpha, self.prior_beta))

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """Decay up to the step, then count."""
        age_P = np.maximum(step_P - decayed_P, 0)
        kept_P = np.where(age_P > 0, self.local_decay * powers(self.global_decay, age_P), 1.0)
        prior_K = np.array((self.prior_alpha, self.prior_beta))
        decayed_PK = np.where((age_P > 0)[:, None], prior_K + kept_P[:, None] * (values_PK - prior_K), values_PK)
        weight_P = powers(self.lag_discount, lag_P)
        return decayed_PK + np.stack((weight_P * accuracy_P, weight_P * (1.0 - accuracy_P)), axis=1)

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P) with the global decay up to `step`."""
        kept_P = powers(self.global_decay, np.maximum(step - decayed_step_P, 0))
        alpha_P = self.prior_alpha + kept_P * (values_PK[:, 0] - self.prior_alpha)
        beta_P = self.prior_beta + kept_P * (values_PK[:, 1] - self.prior_beta)
        return alpha_P, beta_P
