"""Rollout-GDRO: a shadow price on rollouts, the same for all, so that the mean budget is held.

    minimise sum_b count_b * v_b / n_b   with   sum_b count_b * n_b = total:    n_b = sqrt(v_b / mu)

b: bins of the belief's mean, v_b = p (1 - p) at the bin's mean; mu is the price at which the sum is the budget.

Source: the paper's variance-proxy optimum, in closed form: every call works mu out anew and nothing is kept from one
call to the next. The online form (arms with exponential weights per bin, a dual step on mu, bins of a smoothed
accuracy) is not here: it needs the learner's loss per bin, which no topic carries; the released code apparently never
updates its arms either.

Odd cases. Whole numbers by largest remainder, so prompts of one bin may differ by one. Every prompt certain is the
same number for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import knob
from services.difficulty.budget import _whole
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class RolloutGdro(_whole.Shared):
    """More rollouts for the bins whose outcomes vary.

    Worked number: variances 0.05, 0.2, 0.25 of 100, 50 and 50 prompts, 4 each on the average.

    >>> RolloutGdro.price(np.array([0.05, 0.2, 0.25]), np.array([100, 50, 50]), 4.0).round(6).tolist()
    [2.565719, 5.131439, 5.737123]
    """

    n: int = knob(8, "Rollouts of a prompt on the average.", unit="rollouts", ge=1)
    low: int = knob(2, "Fewest rollouts of a prompt.", unit="rollouts", ge=1)
    high: int = knob(12, "Most rollouts of a prompt.", unit="rollouts", ge=1)
    at_once: int = knob(8, "Prompts that share a budget, where there is room.", unit="prompts", ge=1)
    bins: int = knob(10, "Bins of equal width.", ge=1)

    confidence: ClassVar[str] = "paper"

    @staticmethod
    def price(variance_B: np.ndarray, count_B: np.ndarray, mean: float) -> np.ndarray:
        """n_B = sqrt(v / mu) with mu such that a prompt gets `mean` on the average."""
        root_B = np.sqrt(variance_B)
        return root_B * mean * count_B.sum() / (count_B * root_B).sum()

    def spend(self, states: Beliefs, total: int) -> np.ndarray:
        """Rollouts of each prompt, together `total`."""
        p_P = states.mean_P
        bin_P = np.minimum((p_P * self.bins).astype(int), self.bins - 1)
        count_B = np.bincount(bin_P, minlength=self.bins)
        mean_B = np.bincount(bin_P, p_P, self.bins) / np.maximum(count_B, 1)
        wanted_B = self.price(np.maximum(mean_B * (1 - mean_B), 1e-9), count_B, total / max(len(states), 1))
        return _whole.rounded(wanted_B[bin_P], total, self.low, self.high)
