"""Prompts to choose from, without a look at all of them: beliefs are worked out for the rows that are taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from services.difficulty.state import Beliefs, History, powers

if TYPE_CHECKING:
    from services.difficulty.store import Store

RECENT = 8
"""Outcomes kept per prompt."""
TALLY_KEPT = 0.9
"""What a turn still counts one step later."""


@dataclass(frozen=True)
class View:
    """The prompts of some rows, to choose from. What is taken holds until the store changes."""

    store: Store
    rows_P: np.ndarray
    busy_rows: np.ndarray
    drawn: int
    seed: int
    step: int
    """The store's turn, by which rests and curricula go; beliefs are as of its step."""

    def __len__(self) -> int:
        return len(self.rows_P)

    @property
    def busy(self) -> int:
        """How many are in flight."""
        return len(self.busy_rows)

    def take(self, rows: np.ndarray) -> Beliefs:
        """The beliefs of some prompts, in that order."""
        return self._beliefs(self.rows_P[rows])

    def all(self) -> Beliefs:
        """The beliefs of every prompt."""
        return self._beliefs(self.rows_P)

    def tried(self, within: float = math.inf) -> np.ndarray:
        """Rows outside of which no prompt has an outcome at most `within` steps ago, in order."""
        rows = np.flatnonzero(self.store.columns.used_P.take(self.rows_P))
        history = Lived(self.store, self.rows_P[rows], self.step)
        return rows[history.idle_P <= within]

    def _beliefs(self, rows_P: np.ndarray) -> Beliefs:
        store, columns = self.store, self.store.columns
        values_PK, decayed_P = columns["values"][rows_P], columns["decayed"][rows_P]
        alpha_P, beta_P = store.estimate.pseudo_counts(values_PK, decayed_P, store.step)
        counts = (alpha_P, beta_P, columns["visits"][rows_P], np.isin(rows_P, self.busy_rows))
        known, domains = partial(Lived, store, rows_P, self.step), tuple(store.domains)
        return Beliefs(*counts, self.drawn, self.seed, self.step, known, domains)


class Lived(History):
    """What happened to the prompts of some rows, each column worked out when it is asked for: most never are.

    It holds, as its view does, until the store changes; it cannot be copied by `dataclasses.replace`.
    """

    def __init__(self, store: Store, rows_P: np.ndarray, step: int) -> None:
        for name, value in (("_store", store), ("_rows_P", rows_P), ("_step", step)):
            object.__setattr__(self, name, value)

    def take(self, rows: np.ndarray) -> History:
        """Of some prompts, in that order."""
        return Lived(self._store, self._rows_P[rows], self._step)

    def _column(self, name: str) -> np.ndarray:
        return self._store.columns[name][self._rows_P]

    @cached_property
    def _count_P(self) -> np.ndarray:
        """Outcomes of the newest turn, which is still open: 0 where there is none."""
        return self._column("turn_outcomes")

    @cached_property
    def _age_P(self) -> np.ndarray:
        return np.maximum(self._step - self._column("last_step"), 0)

    @cached_property
    def recent_PR(self) -> np.ndarray:
        missing_PR = np.arange(RECENT) < RECENT - np.minimum(self._column("visits"), RECENT)[:, None]
        return np.where(missing_PR, np.nan, self._column("recent"))

    @cached_property
    def idle_P(self) -> np.ndarray:
        return np.where(self._count_P > 0, self._age_P, np.inf)

    @cached_property
    def tally_P(self) -> np.ndarray:
        return self._column("tally") * powers(TALLY_KEPT, self._age_P)

    @cached_property
    def turns_P(self) -> np.ndarray:
        return self._column("turns") + (self._count_P > 0)

    @cached_property
    def last_mean_P(self) -> np.ndarray:
        count_P = self._count_P
        return np.where(count_P > 0, self._column("turn_sum") / np.maximum(count_P, 1), np.nan)

    @cached_property
    def variance_P(self) -> np.ndarray:
        away_P = np.where(self._count_P > 0, self.last_mean_P - self._column("turn_mean"), 0.0)
        all_P = np.maximum(self.turns_P, 1)
        return (self._column("turn_squares") + away_P * away_P * self._column("turns") / all_P) / all_P

    @cached_property
    def diversity_P(self) -> np.ndarray:
        return self._column("diversity")

    @cached_property
    def domain_P(self) -> np.ndarray:
        return self._column("domain")
