"""CurES's quotas: rollouts in proportion to the deviation of a prompt's gradient.

    n_p = B * sigma_p / sum(sigma),   sigma^2 = a b^2 mean(g+^2) + a^2 b mean(g-^2) - a^2 b^2 (mean g+ - mean g-)^2

a: share of right answers, b = 1 - a, g+ and g-: gradient norms of right and wrong rollouts.

Source: authors' code. Gradient norms come from a backward pass of a cold start; nobody measures them here, so `spend`
takes 1 for all of them: then sigma^2 = a * b.

Odd cases. The released rounding does not keep the sum; here it is kept to the rollout. sigma 0 (all alike) has quota 0
there; here every prompt gets `low`. A side without rollouts counts as norm 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import knob
from services.difficulty.budget import _whole
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Cures(_whole.Shared):
    """More rollouts where the gradient varies.

    Worked number: one right of norm 2 and three wrong of norm 1, and two of each.

    >>> float(Cures.deviation(0.25, [2.0], [1.0] * 3).round(6)), float(Cures.deviation(0.5, [2.0] * 2, [1.0] * 2))
    (0.757772, 0.75)
    >>> p = np.array([0.1, 0.5])
    >>> Cures()(Beliefs(p, 1 - p, p, p > 9), 16).tolist()
    [6, 10]
    """

    n: int = knob(8, "Rollouts of a prompt on the average.", unit="rollouts", ge=1)
    low: int = knob(2, "Fewest rollouts of a prompt.", unit="rollouts", ge=1)
    high: int = knob(32, "Most rollouts of a prompt.", unit="rollouts", ge=1)
    at_once: int = knob(8, "Prompts that share a budget, where there is room.", unit="prompts", ge=1)

    confidence: ClassVar[str] = "code"

    @staticmethod
    def deviation(a: float | np.ndarray, right: list[float], wrong: list[float]) -> np.ndarray:
        """sigma at pass rates a, from the gradient norms of right and wrong rollouts."""
        b, plus, minus = 1 - a, np.array(right or [0.0]), np.array(wrong or [0.0])
        square = a * b * b * (plus**2).mean() + a * a * b * (minus**2).mean()
        return np.sqrt(square - a * a * b * b * (plus.mean() - minus.mean()) ** 2)

    def spend(self, states: Beliefs, total: int) -> np.ndarray:
        """Rollouts of each prompt, together `total`."""
        return _whole.rounded(self.deviation(states.mean_P, [1.0], [1.0]), total, self.low, self.high)
