"""Rollouts in proportion to the variance of an outcome.

    n_p in proportion to p * (1 - p), at least `low`, at most `high`, together n for each prompt

Source: Neyman's allocation with the variance in place of the deviation: what many recipes do by hand.

Odd case: all prompts certain is the same number for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import knob
from services.difficulty.budget import _whole
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class VarianceProportional(_whole.Shared):
    """More rollouts where the outcome is open.

    Worked number: pass rates 0.5 and 0.1 share 16 rollouts 12 to 4.

    >>> p = np.array([0.5, 0.1])
    >>> VarianceProportional()(Beliefs(p, 1 - p, p, p > 9), 16).tolist()
    [12, 4]
    """

    n: int = knob(8, "Rollouts of a prompt on the average.", unit="rollouts", ge=1)
    low: int = knob(2, "Fewest rollouts of a prompt.", unit="rollouts", ge=1)
    high: int = knob(32, "Most rollouts of a prompt.", unit="rollouts", ge=1)
    at_once: int = knob(8, "Prompts that share a budget, where there is room.", unit="prompts", ge=1)

    confidence: ClassVar[str] = "standard"

    def spend(self, states: Beliefs, total: int) -> np.ndarray:
        """Rollouts of each prompt, together `total`."""
        p_P = states.mean_P
        return _whole.rounded(p_P * (1 - p_P), total, self.low, self.high)
