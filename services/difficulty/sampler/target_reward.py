"""Prompts whose pass rate is near a target, by softmax.

    score_p = -|target - p|,   w_p = exp(score_p / tau)

p is the posterior mean, or with `thompson` a draw from the posterior. Drawn one after the other in proportion to w;
tau 0 takes the n nearest.

Source: another implementation's difficulty-based selector (Trinity-RFT, the reading of BOTS).

Odd case: with `tau` 0 and more than `pool` prompts the nearest of that many candidates at random are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _keyed, _pick, _weighted
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class TargetReward:
    """Prompts near the target.

    Worked number: at 0.5, 0.7 and 0.1 with tau 0.2 the weights are 1, exp(-1) and exp(-2).

    >>> p = np.array([0.5, 0.7, 0.1])
    >>> TargetReward(tau=0.2).score(Beliefs(p, 1 - p, p, p > 9)).round(6).tolist()
    [0.665241, 0.244728, 0.090031]
    """

    target: float = knob(0.5, "Wanted pass rate.", ge=0, le=1)
    tau: float = knob(0.1, "Temperature; 0 takes the nearest.", ge=0)
    thompson: bool = knob(False, "Draw the pass rate from the posterior instead of taking its mean.")
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    pool: int = knob(32768, "Candidates drawn at random where there are more prompts; 0 looks at all.", ge=0)

    confidence: ClassVar[str] = "implementation"
    __post_init__ = check

    def __call__(self, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`; without replacement `UserError` when there are fewer prompts."""
        if self.tau == 0 or self.thompson:
            return _keyed.best(self, states, n, rng)
        return _weighted.weighted(self, states, n, rng)

    @property
    def ceiling(self) -> float:
        """No weight is above it."""
        return 1.0

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        return np.exp(-np.abs(self.target - states.mean_P) / self.tau)

    def key(self, states: Beliefs, rng: np.random.Generator) -> np.ndarray:
        """Distance to the target; with tau > 0 the keys of a draw in proportion to w (Gumbel)."""
        alpha_P, beta_P = np.maximum(states.alpha_P, 1e-9), np.maximum(states.beta_P, 1e-9)
        p_P = rng.beta(alpha_P, beta_P) if self.thompson else states.mean_P
        away_P = np.abs(self.target - p_P)
        return away_P if self.tau == 0 else away_P / self.tau - rng.gumbel(size=len(away_P))

    def score(self, states: Beliefs) -> np.ndarray:
        """Probability to be the next; with tau 0 the negated distance."""
        if self.tau == 0:
            return -np.abs(self.target - states.mean_P)
        return _pick.probability(self.weight(states))
