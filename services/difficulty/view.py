"""Prompts to choose from, without a look at all of them: beliefs are worked out for the rows that are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from services.difficulty.state import Beliefs

if TYPE_CHECKING:
    from services.difficulty.store import Store


@dataclass(frozen=True)
class View:
    """The prompts of some rows, to choose from: beliefs are worked out for the rows that are taken."""

    store: Store
    rows_P: np.ndarray
    busy_rows: np.ndarray
    drawn: int
    seed: int
    step: int

    def __len__(self) -> int:
        return len(self.rows_P)

    @property
    def busy(self) -> int:
        """How many are in flight."""
        return len(self.busy_rows)

    def take(self, rows: np.ndarray) -> Beliefs:
        """The beliefs of some prompts, in that order."""
        return self.store.beliefs(self.rows_P[rows], self.busy_rows, self.drawn, self.seed)

    def all(self) -> Beliefs:
        """The beliefs of every prompt."""
        return self.store.beliefs(self.rows_P, self.busy_rows, self.drawn, self.seed)
