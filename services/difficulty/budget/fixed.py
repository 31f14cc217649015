"""The same number of rollouts for every prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Fixed:
    """Whole groups.

    Worked number: a budget of 10 is two prompts of 4, and 2 are left.

    >>> ones = np.ones(2)
    >>> Fixed(n=4).prompts(10), Fixed(n=4)(Beliefs(ones, ones, ones, ones > 1), 10).tolist()
    (2, [4, 4])
    """

    n: int = knob(8, "Rollouts of a prompt, the size of a comparison group.", unit="rollouts", ge=1)

    kept: ClassVar[int] = 0
    __post_init__ = check

    @property
    def typical(self) -> int:
        """Rollouts of a prompt on the average."""
        return self.n

    def prompts(self, budget: int, groups: int = 0, step: int = 0) -> int:
        """How many prompts to choose when `budget` rollouts may be spent."""
        return budget // self.n

    def __call__(self, states: Beliefs, budget: int) -> np.ndarray:
        """Rollouts of each chosen prompt; their sum is at most `budget`."""
        if len(states) * self.n > budget:
            raise UserError(f"{len(states)} prompts of {self.n} rollouts were asked for; accepted: {budget} rollouts")
        return np.full(len(states), self.n, int)
