"""Prompts to choose from, without a look at all of them: beliefs are worked out for the rows that are taken."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from services.difficulty.state import Beliefs, History, powers

if TYPE_CHECKING:
    from services.difficulty.store import Store

RECENT = 8
"""Outcomes kept per prompt."""
TALLY_KEPT = 0.9
"""What a turn still counts one step later."""
TURN = ("turns", "turn_mean", "turn_squares", "turn_sum", "turn_outcomes")
"""Columns of a prompt's turns."""


@dataclass(frozen=True)
class View:
    """The prompts of some rows, to choose from. What is taken holds until the store changes."""

    store: Store
    rows_P: np.ndarray
    busy_rows: np.ndarray
    drawn: int
    seed: int
    step: int
    """The step that curricula go by; beliefs are as of the store's."""

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

    def _beliefs(self, rows_P: np.ndarray) -> Beliefs:
        store, columns = self.store, self.store.columns
        values_PK, decayed_P = columns["values"][rows_P], columns["decayed"][rows_P]
        alpha_P, beta_P = store.estimate.pseudo_counts(values_PK, decayed_P, store.step)
        counts = (alpha_P, beta_P, columns["visits"][rows_P], np.isin(rows_P, self.busy_rows))
        known, domains = partial(_history, store, rows_P, store.step), tuple(store.domains)
        return Beliefs(*counts, self.drawn, self.seed, self.step, known, domains)


def _history(store: Store, rows_P: np.ndarray, step: int) -> History:
    """What happened to the prompts of these rows."""
    columns, visits_P = store.columns, store.columns["visits"][rows_P]
    turns, mean, squares, total, count, last, tally, recent_PR = (
        columns[name][rows_P] for name in (*TURN, "last_step", "tally", "recent")
    )
    open_P = count > 0
    last_mean_P = np.where(open_P, total / np.maximum(count, 1), np.nan)
    all_P = turns + open_P
    away_P = np.where(open_P, last_mean_P - mean, 0.0)
    squares_P = squares + away_P * away_P * turns / np.maximum(all_P, 1)
    age_P = np.maximum(step - last, 0)
    missing_PR = np.arange(RECENT) < RECENT - np.minimum(visits_P, RECENT)[:, None]
    return History(
        recent_PR=np.where(missing_PR, np.nan, recent_PR),
        idle_P=np.where(open_P, age_P, np.inf),
        tally_P=tally * powers(TALLY_KEPT, age_P),
        turns_P=all_P,
        variance_P=squares_P / np.maximum(all_P, 1),
        last_mean_P=last_mean_P,
        diversity_P=columns["diversity"][rows_P],
        domain_P=columns["domain"][rows_P],
    )
