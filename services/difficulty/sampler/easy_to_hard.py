"""Easy prompts early, hard ones late, with annealing (A-GRAE's finding, as a sampler).

    w_p = (1 - omega) * sqrt(p) + omega * sqrt(1 - p),   omega = min(step / anneal_steps, 1)

A-GRAE weighs a group's advantage by omega / sqrt(p) + (1 - omega) / sqrt(1 - p), omega the batch's accuracy; times the
sqrt(p (1 - p)) by which a group's normalised advantages grow, that is the weight above. omega follows the step here.

Source: A-GRAE's paper for the finding; the transfer to a sampler and the schedule are ours.

Odd case: a prompt never passed has weight 0 at step 0, and one always passed has weight 0 at the end: `floor` keeps
both in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _weighted
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class EasyToHard(_weighted.ByWeight):
    """From easy to hard.

    Worked number: a pass rate of 0.25 weighs 0.5 at first and sqrt(0.75) at the end, with no floor.

    >>> p = np.array([0.25])
    >>> early, late = Beliefs(p, 1 - p, p, p > 9), Beliefs(p, 1 - p, p, p > 9, step=100)
    >>> [EasyToHard(floor=0).weight(each).round(6).tolist() for each in (early, late)]
    [[0.5], [0.866025]]
    """

    anneal_steps: int = knob(100, "Steps from easy to hard.", unit="steps", ge=1)
    floor: float = knob(0.05, "Weight that every prompt has.", ge=0)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")

    confidence: ClassVar[str] = "guess"
    __post_init__ = check

    @property
    def ceiling(self) -> float:
        """No weight is above it."""
        return 1.0 + self.floor

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        omega, p_P = min(states.step / self.anneal_steps, 1.0), states.mean_P
        return (1 - omega) * np.sqrt(p_P) + omega * np.sqrt(1 - p_P) + self.floor
