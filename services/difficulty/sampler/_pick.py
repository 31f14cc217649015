"""What every way to choose shares: which prompts are looked at, and how n of them are taken by rising key.

    _weighted   in proportion to w_p >= 0
    _keyed      the lowest keys (a draw, a score)
    _quota      each class of prompts up to its share

Prompts in flight, with `avoid_busy`: without replacement they come after all others, with replacement they are left
out as long as there is any other.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pipeline.errors import UserError
from services.difficulty.state import Beliefs, States


class Part(Protocol):
    """What every sampler that goes by a weight, a key or a quota has."""

    uniform_share: float
    with_replacement: bool
    avoid_busy: bool


class Pooled(Part, Protocol):
    """A sampler that looks at some candidates only."""

    pool: int


def probability(weight_P: np.ndarray) -> np.ndarray:
    """Weights in proportion, summing to 1; uniform when all are 0."""
    total = weight_P.sum()
    return weight_P / total if total > 0 else np.full(len(weight_P), 1.0 / max(len(weight_P), 1))


def enough(states: States, n: int) -> None:
    """Refuse to choose more distinct prompts than there are."""
    if not 0 <= n <= len(states):
        raise UserError(f"{n} distinct prompts were asked for; accepted: 0 to {len(states)}, the number of prompts")


def at_random(part: Part, n: int, rng: np.random.Generator) -> int:
    """How many of n places go to prompts at random: each with chance `uniform_share`."""
    return int(rng.binomial(n, part.uniform_share)) if part.uniform_share else 0


def candidates(part: Pooled, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows to look at: `pool` distinct ones at random where there are more, in order; at least 4 for each place."""
    pool = max(part.pool, 4 * n) if part.pool else 0
    if not pool or len(states) <= pool:
        return np.arange(len(states))
    return np.sort(rng.choice(len(states), size=pool, replace=False, shuffle=False))


def avoided(part: Part, beliefs: Beliefs) -> np.ndarray:
    """Whether each prompt is in flight and the sampler avoids that."""
    return beliefs.busy_P if part.avoid_busy else np.zeros(len(beliefs), bool)


def open_rows(part: Part, beliefs: Beliefs) -> np.ndarray:
    """The rows that may be chosen again and again: those not avoided, all when that leaves none."""
    avoided_P = avoided(part, beliefs)
    return np.arange(len(beliefs)) if avoided_P.all() else np.flatnonzero(~avoided_P)


def pick(part: Part, key_P: np.ndarray, beliefs: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` distinct indices: the uniform share of them at random, the rest by rising key, in that order."""
    avoided_P = avoided(part, beliefs)
    by_key = n - at_random(part, n, rng)
    best = last_avoided(key_P, avoided_P, by_key)
    if by_key == n:
        return best
    left_P = np.ones(len(beliefs), bool)
    left_P[best] = False
    left = np.flatnonzero(left_P)
    return np.concatenate([best, left[last_avoided(rng.random(len(left)), avoided_P[left], n - by_key)]])


def last_avoided(key_P: np.ndarray, avoided_P: np.ndarray, n: int) -> np.ndarray:
    """The rows of the n lowest keys, the lowest first; those avoided after all others.

    >>> last_avoided(np.array([3.0, 1.0, 2.0]), np.array([False, True, False]), 3).tolist()
    [2, 0, 1]
    """
    others, last = np.flatnonzero(~avoided_P), np.flatnonzero(avoided_P)
    first = _ordered(key_P, others, min(n, len(others)))
    return np.concatenate([first, _ordered(key_P, last, n - len(first))])


def lowest(key_P: np.ndarray, n: int) -> np.ndarray:
    """The rows of the n lowest keys, the lowest first; of equal keys the earlier row.

    >>> lowest(np.array([3.0, 1.0, 2.0, 1.0, 2.0]), 3).tolist()
    [1, 3, 2]
    """
    if not 0 < n < len(key_P):
        return np.argsort(key_P, kind="stable")[:n]
    rows = np.flatnonzero(key_P <= np.partition(key_P, n - 1)[n - 1])
    return rows[np.argsort(key_P[rows], kind="stable")[:n]]


def _ordered(key_P: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    if 0 < n < len(rows):
        rows = rows[np.argpartition(key_P[rows], n - 1)[:n]]
    return rows[np.lexsort((rows, key_P[rows]))][:n]
