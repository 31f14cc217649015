"""CurES's prompt distribution: where the gradient's bound is largest, softened by a temperature.

    w_p = exp(sqrt(p * (1 - p)) / tau)                 the paper
    w_p = exp(sqrt(p * (1 - p)) * 0.01 / (right + 1))  the released code

Source: authors' code and a second-hand reading of the paper. The code divides by 100 * (right + 1), which makes it
almost uniform: tau is the real knob, and `form: code` is what was released (right = alpha - 1).

Odd case: the paper draws without replacement until less than a batch is left, then from all again; here prompts in
flight come last instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _weighted
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Cures(_weighted.ByWeight):
    """Prompts near one half more often.

    Worked number: 0, 1, 2 and 4 of 4 right.

    >>> right = np.array([0, 1, 2, 4.0])
    >>> states = Beliefs(right + 1, 5 - right, right, right > 9)
    >>> Cures().score(states).round(6).tolist()
    [0.121121, 0.325074, 0.432684, 0.121121]
    >>> Cures(form="code").score(states).round(6).tolist()
    [0.250401, 0.250058, 0.249886, 0.249655]
    """

    tau: float = knob(0.1, "Temperature; larger is closer to uniform.", gt=0)
    form: str = knob("paper", "Whose weight.", choices=("paper", "code"))
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")

    confidence: ClassVar[str] = "code"
    __post_init__ = check

    @property
    def ceiling(self) -> float:
        """No weight is above it."""
        return float(np.exp(0.5 / self.tau if self.form == "paper" else 0.005))

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        p_P = states.mean_P
        per_P = self.tau if self.form == "paper" else 100.0 * np.maximum(states.alpha_P, 1.0)
        return np.exp(np.sqrt(p_P * (1 - p_P)) / per_P)
