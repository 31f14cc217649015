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

from services.difficulty.sampler import _keyed, _pick
from services.difficulty.state import Beliefs

TINY = 1e-9
"""Smallest pseudo-count that is drawn with: a Beta needs both above 0."""


@dataclass(frozen=True)
class VadeThompson(_keyed.ByKey):
    """Prompts whose next outcome would teach most, by a draw from what is believed.

    `uniform_share`: chance that a place goes to a prompt at random, in [0, 1]; paper 0.
    `avoid_busy`: choose prompts without rollouts in flight first. `with_replacement`: may a prompt be chosen twice in
    one call. `pool`: candidates drawn at random where there are more prompts; 0 draws for every prompt.

    Worked number: draws 0.076, 0.463, 0.660, 0.737 score 0.065, 0.134, 0.076, 0.051.

    >>> a, b = np.array([1.0, 3, 9, 5]), np.array([9.0, 3, 1, 5])
    >>> states = Beliefs(a, b, a, a > 99)
    >>> VadeThompson()(states, 2, np.random.default_rng(0)).tolist()
    [1, 2]
    >>> VadeThompson().score(states).round(6).tolist()
    [0.068182, 0.107143, 0.013636, 0.113636]
    """

    uniform_share: float = 0.0
    avoid_busy: bool = True
    with_replacement: bool = False
    pool: int = 32768

    confidence: ClassVar[str] = "paper"

    def __post_init__(self) -> None:
        _pick.share("uniform_share", self.uniform_share)
        if self.pool < 0:
            raise ValueError(f"pool is {self.pool}; accepted: at least 0")

    def key(self, states: Beliefs, rng: np.random.Generator) -> np.ndarray:
        """A draw's score, negated."""
        theta_P = rng.beta(np.maximum(states.alpha_P, TINY), np.maximum(states.beta_P, TINY))
        return -theta_P * (1.0 - theta_P) ** 2

    def score(self, states: Beliefs) -> np.ndarray:
        """Expected score of each prompt."""
        a_P, b_P = states.alpha_P, states.beta_P
        n_P = a_P + b_P
        return a_P * b_P * (b_P + 1) / (n_P * (n_P + 1) * (n_P + 2))
