"""Thompson sampling with VADE's information score (arXiv:2511.18902; the score is confirmed by a second source).

    theta_p ~ Beta(alpha_p, beta_p),   score_p = theta_p * (1 - theta_p) ** 2,   take the n highest

The score is highest at theta = 1/3. Its expectation is closed: a b (b+1) / ((a+b)(a+b+1)(a+b+2)).

Odd cases: at the prior of all prompts this is pure exploration. In a stream the choice is made many times per step, so
prompts in flight come last (`avoid_busy`); a whole batch chosen at once is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _keyed
from services.difficulty.state import Beliefs

TINY = 1e-9
"""Smallest pseudo-count that is drawn with: a Beta needs both above 0."""


@dataclass(frozen=True)
class VadeThompson(_keyed.ByKey):
    """Prompts whose next outcome would teach most, by a draw from what is believed.

    Worked number: draws 0.076, 0.463, 0.660, 0.737 score 0.065, 0.134, 0.076, 0.051.

    >>> a, b = np.array([1.0, 3, 9, 5]), np.array([9.0, 3, 1, 5])
    >>> states = Beliefs(a, b, a, a > 99)
    >>> VadeThompson()(states, 2, np.random.default_rng(0)).tolist()
    [1, 2]
    >>> VadeThompson().score(states).round(6).tolist()
    [0.068182, 0.107143, 0.013636, 0.113636]
    """

    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random; paper 0.", ge=0, le=1)
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    pool: int = knob(32768, "Candidates drawn at random where there are more prompts; 0 looks at all.", ge=0)

    confidence: ClassVar[str] = "paper"
    __post_init__ = check

    def key(self, states: Beliefs, rng: np.random.Generator) -> np.ndarray:
        """A draw's score, negated."""
        theta_P = rng.beta(np.maximum(states.alpha_P, TINY), np.maximum(states.beta_P, TINY))
        return -theta_P * (1.0 - theta_P) ** 2

    def score(self, states: Beliefs) -> np.ndarray:
        """Expected score of each prompt."""
        a_P, b_P = states.alpha_P, states.beta_P
        n_P = a_P + b_P
        return a_P * b_P * (b_P + 1) / (n_P * (n_P + 1) * (n_P + 2))
