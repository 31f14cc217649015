"""Turns of a prompt: what came of it at one step of the learner, or in one batch of outcomes where no learner is.

A turn is over when an outcome of a later one arrives. Of those that are over a prompt keeps their number, the mean of
their mean accuracies and the sum of squared deviations from it (Welford); of the newest one, sum and number.
"""

from __future__ import annotations

import numpy as np

from services.difficulty.state import powers
from services.difficulty.view import TALLY_KEPT


def count(taken: np.ndarray, accuracy_N: np.ndarray, turn_N: np.ndarray) -> None:
    """Count one outcome of each of N rows, given what they hold, in the turn in which it came."""
    last_N, count_N, sum_N = (taken[name] for name in ("last_step", "turn_outcomes", "turn_sum"))
    new_N = (count_N == 0) | (last_N != turn_N)
    over_N = new_N & (count_N > 0)
    if over_N.any():
        mean = sum_N[over_N] / count_N[over_N]
        number = taken["turns"][over_N] + 1
        away = mean - taken["turn_mean"][over_N]
        taken["turns"][over_N] = number
        taken["turn_mean"][over_N] += away / number
        taken["turn_squares"][over_N] += away * (mean - taken["turn_mean"][over_N])
    if new_N.any():
        kept = powers(TALLY_KEPT, np.maximum(turn_N[new_N] - last_N[new_N], 0))
        taken["tally"][new_N] = taken["tally"][new_N] * kept + 1.0
    taken["turn_sum"] = np.where(new_N, accuracy_N, sum_N + accuracy_N)
    taken["turn_outcomes"] = np.where(new_N, 1, count_N + 1)
    taken["last_step"] = turn_N
