"""Prompts rest after they were tried, the longer the more often (tallying and last-switch-dependent bandits).

    tally <- 0.9 * tally + 1 at each turn;   recharge = 1 - exp(-d / d0), d: steps since the last turn
    w_p = (sqrt(p * (1 - p)) + floor) * recharge_p / (1 + satiation * tally_p)

Source: the transfer of two bandit papers to prompts is ours (their regret bounds say nothing of it).

Odd case: a prompt never tried is fully charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _weighted
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class LastSwitch(_weighted.ByWeight):
    """Tried, rested, tried again.

    Worked number: with d0 = 3, after 1, 3 and 6 steps a prompt is charged to 0.2835, 0.6321, 0.8647.

    >>> LastSwitch().recharge(np.array([1.0, 3.0, 6.0, np.inf])).round(4).tolist()
    [0.2835, 0.6321, 0.8647, 1.0]
    """

    d0: float = knob(3.0, "Time constant of the recharge.", unit="steps", gt=0)
    satiation: float = knob(0.1, "How strongly the tally lowers the weight.", ge=0)
    floor: float = knob(0.05, "Weight of a prompt of certain outcome.", ge=0)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")

    confidence: ClassVar[str] = "guess"
    __post_init__ = check

    @property
    def ceiling(self) -> float:
        """No weight is above it."""
        return 0.5 + self.floor

    def recharge(self, idle_P: np.ndarray) -> np.ndarray:
        """How well each prompt has rested, in [0, 1]."""
        return 1 - np.exp(-idle_P / self.d0)

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        p_P, history = states.mean_P, states.history
        uncertain_P = np.sqrt(p_P * (1 - p_P)) + self.floor
        return uncertain_P * self.recharge(history.idle_P) / (1 + self.satiation * history.tally_P)
