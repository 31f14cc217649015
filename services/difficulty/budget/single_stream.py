"""One rollout for every prompt: single-stream policy optimisation has no groups.

Source: SPO, arXiv:2509.13232; authors' code.

Odd case: every rollout is a group of its own, so parts that compare inside a group cannot be used with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from services.difficulty.budget import _whole
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class SingleStream:
    """As many prompts as rollouts.

    Worked number: a budget of 3 is three prompts of one.

    >>> ones = np.ones(3)
    >>> SingleStream().prompts(3), SingleStream()(Beliefs(ones, ones, ones, ones > 1), 3).tolist()
    (3, [1, 1, 1])
    """

    typical: ClassVar[int] = 1
    kept: ClassVar[int] = 0
    confidence: ClassVar[str] = "code"

    def prompts(self, budget: int, groups: int = 0, step: int = 0) -> int:
        """How many prompts to choose when `budget` rollouts may be spent."""
        return budget

    def __call__(self, states: Beliefs, budget: int) -> np.ndarray:
        """One each."""
        _whole.afford(len(states), 1, budget)
        return np.ones(len(states), int)
