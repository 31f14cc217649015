"""What the samplers share: take the best, idle prompts first, a share of them at random."""

from __future__ import annotations

import numpy as np

from pipeline.errors import UserError
from services.difficulty.state import Beliefs


def enough(states: Beliefs, n: int) -> None:
    """Refuse to choose more distinct prompts than there are."""
    if not 0 <= n <= len(states):
        raise UserError(f"{n} distinct prompts were asked for; accepted: 0 to {len(states)}, the number of prompts")


def share(name: str, value: float) -> None:
    """Refuse a share outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; accepted: 0 to 1")


def pick(
    key_P: np.ndarray, states: Beliefs, n: int, uniform_share: float, avoid_busy: bool, rng: np.random.Generator
) -> np.ndarray:
    """`n` distinct indices: a binomial share of them at random, the rest by rising key, in that order.

    With `avoid_busy`, prompts in flight come after all others.
    """
    busy_P = states.busy_P if avoid_busy else np.zeros(len(states), bool)
    by_key = n - int(rng.binomial(n, uniform_share)) if uniform_share else n
    best = _lowest(key_P, busy_P, by_key)
    if by_key == n:
        return best
    left_P = np.ones(len(states), bool)
    left_P[best] = False
    left = np.flatnonzero(left_P)
    return np.concatenate([best, left[_lowest(rng.random(len(left)), busy_P[left], n - by_key)]])


def _lowest(key_P: np.ndarray, busy_P: np.ndarray, n: int) -> np.ndarray:
    idle, busy = np.flatnonzero(~busy_P), np.flatnonzero(busy_P)
    first = _ordered(key_P, idle, min(n, len(idle)))
    return np.concatenate([first, _ordered(key_P, busy, n - len(first))])


def _ordered(key_P: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    if 0 < n < len(rows):
        rows = rows[np.argpartition(key_P[rows], n - 1)[:n]]
    return rows[np.lexsort((rows, key_P[rows]))][:n]
