"""Three pools by the last mean accuracy, hard, normal and easy, and a share of every batch from each.

    hard: last mean <= hard_below,   easy: last mean >= easy_above,   normal: the rest, and what was never tried

Source: the common practice of pooled sampling; thresholds and shares are ours. Places are whole, and on the
average of many choices each pool has exactly its share; what a pool lacks goes to the others at random.

Odd case: of more than `pool` prompts the pools are those of that many candidates at random, and where one lacks there,
of all that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _quota
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class DifficultyPools(_quota.ByQuota):
    """Shares of hard, normal and easy prompts.

    Worked number: of 4 places one is hard, two are normal, one is easy.

    >>> DifficultyPools().pools(np.array([0.0, 0.5, 1.0, np.nan])).tolist()
    [0, 1, 2, 1]
    """

    hard_below: float = knob(0.25, "Last mean up to which a prompt is hard.", ge=0, le=1)
    easy_above: float = knob(0.75, "Last mean from which a prompt is easy.", ge=0, le=1)
    hard: float = knob(0.25, "Share of hard prompts.", ge=0)
    normal: float = knob(0.5, "Share of the prompts between.", gt=0)
    easy: float = knob(0.25, "Share of easy prompts.", ge=0)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    pool: int = knob(8192, "Candidates at random, and all tried where a class lacks among them; 0: all.", ge=0)

    confidence: ClassVar[str] = "guess"
    __post_init__ = check

    def pools(self, last_mean_P: np.ndarray) -> np.ndarray:
        """0 hard, 1 normal, 2 easy."""
        return np.where(last_mean_P <= self.hard_below, 0, np.where(last_mean_P >= self.easy_above, 2, 1))

    def classes(self, states: Beliefs) -> np.ndarray:
        """Each prompt's pool."""
        return self.pools(states.history.last_mean_P)

    def apart(self, states: States) -> np.ndarray:
        """What was never tried is normal."""
        return states.tried()

    def places(self, states: Beliefs) -> np.ndarray:
        """Share of each pool."""
        return np.array([self.hard, self.normal, self.easy])
