"""VSPO's task value: how much is left to win, times how uncertain it is.

    V_p = (r_max - mean) * sqrt(mean * (1 - mean)) / (1 + tally) ** smoothing

Source: a summary of arXiv:2512.07478 for (R_max - mu) * sigma. There groups without signal are filled up by prompts
drawn in proportion to V, and what repeated prompts contribute is limited; that limit's form is a guess: here a prompt
tried lately (`tally`: turns so far, each worth 0.9 per step since) is drawn less by its root.

Odd case: all 0 is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _weighted
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Vspo(_weighted.ByWeight):
    """Prompts with something to win.

    Worked number: means 0.2, 0.5, 0.8 are worth 0.32, 0.25, 0.08.

    >>> mean = np.array([0.2, 0.5, 0.8])
    >>> Vspo().score(Beliefs(mean, 1 - mean, mean, mean > 9)).round(6).tolist()
    [0.492308, 0.384615, 0.123077]
    """

    r_max: float = knob(1.0, "Largest reward.", ge=1)
    smoothing: float = knob(0.5, "How strongly recent turns lower the value; 0 not at all. A guess.", ge=0)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")

    confidence: ClassVar[str] = "guess"
    __post_init__ = check

    @property
    def ceiling(self) -> float:
        """No weight is above it."""
        mean = np.linspace(0, 1, 1001)
        return float(((self.r_max - mean) * np.sqrt(mean * (1 - mean))).max()) * 1.001

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        mean_P = states.mean_P
        value_P = (self.r_max - mean_P) * np.sqrt(mean_P * (1 - mean_P))
        return value_P / (1 + states.history.tally_P) ** self.smoothing
