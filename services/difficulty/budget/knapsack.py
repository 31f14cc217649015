"""Knapsack RL: rollouts where they are worth most, under a hard sum.

    Value(N, p) = (1 - p^N - (1 - p)^N) * p * (1 - p)^2,   maximise the sum over prompts

Value is concave in N, so giving one rollout after the other to the largest gain is exact (`solver: greedy`); the
dynamic programme over (prompt, rollouts) finds the same (`dp`), and `released` is the authors' programme, which does
not credit a prompt that stays at `low` with its value there and so gives almost everyone one more.

Source: authors' code, of which the value and the programme are here. Not here: `n` rollouts, and no more, for a prompt
with fewer than 8 outcomes; 2 rollouts for one that always failed or always passed; what is left over when all others
have what they need (log(1 - 0.9) / log max(p, 1 - p)), which goes to those that always failed. Nor is p the mean of
the newest 16 outcomes: it is the belief's. All prompts share by value alone, and a new one by its prior.

Odd cases. p is clipped to [0.001, 0.999]: a belief is never certain. Of equal gains the earlier prompt gets the
rollout. With more prompts than rollouts for `low` each the call is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import knob
from services.difficulty.budget import _whole
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Knapsack(_whole.Shared):
    """More rollouts where they may show both answers.

    Worked number: 24 rollouts at pass rates 0.25, 0.5 and 0.75.

    >>> p = np.array([0.25, 0.5, 0.75])
    >>> Knapsack()(Beliefs(p, 1 - p, p, p > 9), 24).tolist()
    [11, 6, 7]
    >>> Knapsack.value(np.array([2, 8]), 0.25).round(6).tolist()
    [0.052734, 0.126544]
    """

    n: int = knob(8, "Rollouts of a prompt on the average.", unit="rollouts", ge=1)
    low: int = knob(2, "Fewest rollouts of a prompt.", unit="rollouts", ge=1)
    high: int = knob(128, "Most rollouts of a prompt.", unit="rollouts", ge=1)
    at_once: int = knob(8, "Prompts that share a budget, where there is room.", unit="prompts", ge=1)
    solver: str = knob("greedy", "How it is solved.", choices=("greedy", "dp", "released"))

    confidence: ClassVar[str] = "code"

    @staticmethod
    def value(n: np.ndarray, p: np.ndarray | float) -> np.ndarray:
        """What n rollouts of a prompt are worth."""
        return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2

    def spend(self, states: Beliefs, total: int) -> np.ndarray:
        """Rollouts of each prompt, together `total`."""
        p_P = np.clip(states.mean_P, 0.001, 0.999)
        high = min(self.high, total - self.low * (len(p_P) - 1))
        value_PN = self.value(np.arange(self.low, high + 1)[None, :], p_P[:, None])
        extra = total - self.low * len(p_P)
        if self.solver == "greedy":
            return self.low + _greedy(np.diff(value_PN, axis=1), extra)
        if self.solver == "released":
            value_PN = value_PN.copy()
            value_PN[:, 0] = 0.0
        return self.low + _programme(value_PN, extra)


def _greedy(gain_PN: np.ndarray, extra: int) -> np.ndarray:
    """How many of the `extra` largest gains each prompt has; gains fall along a row, so these come first in it."""
    prompts, steps = gain_PN.shape
    order = np.lexsort((np.repeat(np.arange(prompts), steps), np.tile(np.arange(steps), prompts), -gain_PN.ravel()))
    return np.bincount(order[:extra] // max(steps, 1), minlength=prompts)


def _programme(value_PN: np.ndarray, extra: int) -> np.ndarray:
    """The split of `extra` with the largest value: best[e] over the prompts so far, then back along the choices."""
    best_E = np.full(extra + 1, -np.inf)
    best_E[0], chosen = 0.0, []
    for value_N in value_PN:
        width = min(len(value_N), extra + 1)
        table_NE = np.full((width, extra + 1), -np.inf)
        for more in range(width):
            table_NE[more, more:] = best_E[: extra + 1 - more] + value_N[more]
        chosen.append(table_NE.argmax(axis=0))
        best_E = table_NE.max(axis=0)
    counts, left = [], extra
    for choice_E in reversed(chosen):
        counts.append(int(choice_E[left]))
        left -= counts[-1]
    return np.array(counts[::-1], int)
