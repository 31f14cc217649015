"""Drawing in proportion to a weight: one prompt after the other, the n smallest of Exponential(1) / w.

With more than `FULL` prompts it draws in chunks: rows at random, each taken with probability w / ceiling unless it was
taken before. That is the same distribution (sequential draws in proportion to w), and looks at about
n * ceiling / mean(w) prompts; when that gets as many as there are, the rest is drawn the full way from what is left. A
chi-square test holds it to the full draw (tests/services/difficulty/sampler/test_large.py).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from services.difficulty.sampler import _pick
from services.difficulty.state import Beliefs, States

FULL = 16_384
"""Up to so many prompts every one is looked at."""
CHUNK = 2048
"""Prompts looked at together."""


class Weighted(_pick.Part, Protocol):
    """A sampler that draws in proportion to a weight."""

    @property
    def ceiling(self) -> float | None:
        """No weight is above it; None where only a look at all prompts could tell."""
        ...

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P >= 0, each prompt's for itself."""
        ...


class ByWeight:
    """What samplers that draw in proportion to a weight have in common; they are `Weighted`."""

    def __call__(self: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`; without replacement `UserError` when there are fewer prompts."""
        return weighted(self, states, n, rng)

    def score(self: Any, states: Beliefs) -> np.ndarray:
        """Probability of each prompt to be the next."""
        return _pick.probability(self.weight(states))


def weighted(part: Weighted, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` indices in proportion to the part's weights. `UserError` without replacement when there are fewer prompts."""
    _pick.enough(states, min(n, 1) if part.with_replacement else n)
    busy = states.busy if part.avoid_busy else 0
    if part.ceiling is not None and len(states) > FULL and n + busy <= len(states) // 2:
        return _chunked(part, part.ceiling, states, n, rng)
    beliefs = states.all()
    if part.with_replacement:
        random = _pick.at_random(part, n, rng)
        return _again(part, beliefs, n - random, random, rng)
    return _pick.pick(part, _race(_pick.probability(part.weight(beliefs)), rng), beliefs, n, rng)


def _race(weight_P: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return rng.exponential(size=len(weight_P)) / weight_P


def _again(part: Weighted, beliefs: Beliefs, by_weight: int, random: int, rng: np.random.Generator) -> np.ndarray:
    """With replacement: so many by weight, then so many at random."""
    if not by_weight + random:
        return np.empty(0, int)
    rows = _pick.open_rows(part, beliefs)
    drawn = rng.choice(len(rows), size=by_weight, p=_pick.probability(part.weight(beliefs)[rows]))
    return rows[np.concatenate([drawn, rng.integers(len(rows), size=random)])]


def _chunked(part: Weighted, ceiling: float, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    by_weight = n - _pick.at_random(part, n, rng)
    taken: list[int] = []
    known: set[int] = set()
    looked = 0
    while len(taken) < n:
        if looked >= len(states) and len(taken) < by_weight:
            return _rest(part, states, taken, by_weight, n, rng)
        rows = rng.integers(len(states), size=CHUNK)
        looked += CHUNK
        beliefs = states.take(rows)
        wanted_P = ~_pick.avoided(part, beliefs)
        if len(taken) < by_weight:
            wanted_P &= rng.random(CHUNK) * ceiling < part.weight(beliefs)
        end = by_weight if len(taken) < by_weight else n
        for row in rows[wanted_P].tolist():
            if len(taken) < end and (part.with_replacement or row not in known):
                known.add(row)
                taken.append(row)
    return np.array(taken, int)


def _rest(
    part: Weighted, states: States, taken: list[int], by_weight: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """What is missing, drawn from all that were not taken: good weights are too rare for chunks."""
    beliefs = states.all()
    if part.with_replacement:
        more = _again(part, beliefs, by_weight - len(taken), n - by_weight, rng)
        return np.concatenate([taken, more]).astype(int)
    left_P = np.ones(len(states), bool)
    left_P[taken] = False
    left = np.flatnonzero(left_P)
    avoided_P = _pick.avoided(part, beliefs)[left]
    key_P = _race(_pick.probability(part.weight(beliefs)[left]), rng)
    first = _pick.last_avoided(key_P, avoided_P, by_weight - len(taken))
    key_P = rng.random(len(left))
    key_P[first] = np.inf
    more = _pick.last_avoided(key_P, avoided_P, n - by_weight)
    return np.concatenate([taken, left[first], left[more]]).astype(int)
