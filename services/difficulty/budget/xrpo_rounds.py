"""XRPO's rounds: everybody a few, then the rest in rounds to where one more rollout narrows the estimate most.

    h(n) = t_{1 - level/2, n - 1} * s / sqrt(n),   priority = h(n) - h(n + 1) + explore * sqrt(log(1 + T) / n)

T: rollouts given so far. In each of `rounds` rounds an equal part of the rest goes, one by one, to the highest
priority.

Source: a third-party note and reviews of arXiv:2510.06672; the bonus's form, `level` and `explore` are guesses. There
s is measured between the rounds, and a prompt without success gets solved neighbours as examples. Here neither is
done: s is what is believed before the first round, sqrt(p (1 - p)), and the whole plan is one request. A round only
sets T anew, so `rounds` changes little, and nothing at all with `explore` 0.

Odd case: s = 0 leaves the bonus alone to decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from pipeline.knobs import knob
from services.difficulty.budget import _whole
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class XrpoRounds(_whole.Shared):
    """A few for all, more where it is uncertain.

    Worked number: rewards 1, 0, 0, 0 (s = 0.5) have half-widths 0.795612 at 4 and 0.620832 at 5 rollouts.

    >>> [round(float(XrpoRounds().half_width(n, 0.5)), 6) for n in (4, 5)]
    [0.795612, 0.620832]
    """

    n: int = knob(8, "Rollouts of a prompt on the average.", unit="rollouts", ge=1)
    low: int = knob(4, "Fewest rollouts of a prompt.", unit="rollouts", ge=1)
    high: int = knob(32, "Most rollouts of a prompt.", unit="rollouts", ge=1)
    at_once: int = knob(8, "Prompts that share a budget, where there is room.", unit="prompts", ge=1)
    rounds: int = knob(2, "Rounds of the plan after the first; nothing is measured between them.", ge=1)
    level: float = knob(0.05, "One minus the confidence. A guess.", gt=0, lt=1)
    explore: float = knob(0.05, "Weight of the bonus. A guess.", ge=0)

    confidence: ClassVar[str] = "guess"

    def half_width(self, n: int | np.ndarray, s: float | np.ndarray) -> np.ndarray:
        """h(n), n >= 2."""
        counts = np.atleast_1d(n)
        t = np.array([_t_quantile(1 - self.level / 2, int(count) - 1) for count in counts])
        found = t * s / np.sqrt(counts)
        return found if np.ndim(n) else found[0]

    def spend(self, states: Beliefs, total: int) -> np.ndarray:
        """Rollouts of each prompt, together `total`."""
        p_P = states.mean_P
        given_P, spread_P = np.full(len(p_P), self.low), np.sqrt(p_P * (1 - p_P))
        for turn in range(self.rounds):
            part = (total - int(given_P.sum())) // (self.rounds - turn)
            bonus = self.explore * np.sqrt(np.log1p(given_P.sum()))
            for _ in range(part):
                shrink_P = self._shrink(given_P) * spread_P + bonus / np.sqrt(given_P)
                given_P[np.where(given_P < self.high, shrink_P, -np.inf).argmax()] += 1
        return given_P

    def _shrink(self, given_P: np.ndarray) -> np.ndarray:
        at_N = self.half_width(np.arange(2, self.high + 2), 1.0)
        drop_N = np.concatenate([[at_N[0], at_N[0]], at_N[:-1] - at_N[1:]])
        return drop_N[given_P]


@lru_cache(maxsize=512)
def _t_quantile(level: float, dof: int) -> float:
    """Student's t with whole degrees of freedom: its distribution function is a finite sum; halved until it fits."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, dof) < level else (low, middle)
    return (low + high) / 2


def _t_below(t: float, dof: int) -> float:
    angle = math.atan(t / math.sqrt(dof))
    cosine, term, total = math.cos(angle) ** 2, 1.0, 0.0
    for k in range(1 + dof % 2, dof, 2):
        total += term
        term *= cosine * k / (k + 1)
    if dof % 2:
        return 0.5 + (angle + math.sin(angle) * math.cos(angle) * total) / math.pi
    return 0.5 + math.sin(angle) * total / 2
