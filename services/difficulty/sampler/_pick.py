"""What the samplers share: how n prompts are taken by weight, by key or by quota, also out of a million.

    weighted   in proportion to w_p >= 0, one after the other: the n smallest of Exponential(1) / w
    best       by rising key (a draw, a score)
    quotas     keys that fill each class up to its share

With more than `FULL` prompts `weighted` draws in chunks: rows at random, each taken with probability w / ceiling unless
it was taken before. That is the same distribution (sequential draws in proportion to w), and looks at about
n * ceiling / mean(w) prompts; when that gets as many as there are, the rest is drawn the full way from what is left.

`best` looks at `pool` candidates drawn at random, when there are more. Its choice has the full draw's distribution to
the extent that keys vary less inside the band of the chosen than between prompts: for 256 of 32,768 the band is the
best 0.8 %. A chi-square test holds both to the full draw (tests/services/difficulty/sampler/test_large.py).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pipeline.errors import UserError
from services.difficulty.state import Beliefs, States

FULL = 16_384
"""Up to so many prompts every one is looked at."""
CHUNK = 2048
"""Prompts looked at together."""


class Weighted(Protocol):
    """A sampler that draws in proportion to a weight."""

    uniform_share: float
    with_replacement: bool
    avoid_busy: bool

    @property
    def ceiling(self) -> float | None:
        """No weight is above it; None where only a look at all prompts could tell."""
        ...

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P >= 0, each prompt's for itself."""
        ...


class Keyed(Protocol):
    """A sampler that takes the lowest keys."""

    uniform_share: float
    with_replacement: bool
    avoid_busy: bool
    pool: int

    def key(self, states: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
        """key_P, the n lowest are taken."""
        ...


class ByWeight:
    """What samplers that draw in proportion to a weight have in common; they are `Weighted`."""

    def __call__(self: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`; without replacement `UserError` when there are fewer prompts."""
        return weighted(self, states, n, rng)

    def score(self: Any, states: Beliefs) -> np.ndarray:
        """Probability of each prompt to be the next."""
        return probability(self.weight(states))


class ByKey:
    """What samplers that take the lowest keys have in common; they are `Keyed`."""

    def __call__(self: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`, best first; without replacement `UserError` when there are fewer prompts."""
        return best(self, states, n, rng)


class ByQuota(ByKey):
    """What samplers that give each class of prompts a share of the places have in common.

    A part says in `classes` which class each prompt is in (0, 1, ...) and in `places` each class's share. It looks at
    `pool` candidates; where some class lacks prompts among them for its places, at all.
    """

    def __call__(self: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`; without replacement `UserError` when there are fewer prompts."""
        return _by_class(self, states, n, rng) if self.with_replacement else _by_quota(self, states, n, rng)

    def key(self: Any, states: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random keys that fill each class's places."""
        return quotas(self.classes(states), self.places(states), states, n, rng)

    def score(self: Any, states: Beliefs) -> np.ndarray:
        """The share of a prompt's class per prompt of it."""
        class_P, share_C = self.classes(states), self.places(states)
        return probability(share_C[class_P] / np.bincount(class_P, minlength=len(share_C))[class_P])


def probability(weight_P: np.ndarray) -> np.ndarray:
    """Weights in proportion, summing to 1; uniform when all are 0."""
    total = weight_P.sum()
    return weight_P / total if total > 0 else np.full(len(weight_P), 1.0 / max(len(weight_P), 1))


def weighted(part: Weighted, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` indices in proportion to the part's weights. `UserError` without replacement when there are fewer prompts."""
    enough(states, min(n, 1) if part.with_replacement else n)
    busy = states.busy if part.avoid_busy and not part.with_replacement else 0
    if part.ceiling is not None and len(states) > FULL and n + busy <= len(states) // 2:
        return _chunked(part, part.ceiling, states, n, rng)
    beliefs = states.all()
    probability_P = probability(part.weight(beliefs))
    if part.with_replacement:
        mixed_P = (1 - part.uniform_share) * probability_P + part.uniform_share / max(len(states), 1)
        return rng.choice(len(states), size=n, p=mixed_P / mixed_P.sum()) if n else np.empty(0, int)
    return pick(_race(probability_P, rng), beliefs, n, part.uniform_share, part.avoid_busy, rng)


def _race(weight_P: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return rng.exponential(size=len(weight_P)) / weight_P


def _chunked(part: Weighted, ceiling: float, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    by_weight = n - int(rng.binomial(n, part.uniform_share)) if part.uniform_share else n
    taken: list[int] = []
    known: set[int] = set()
    looked = 0
    while len(taken) < n:
        if looked >= len(states) and len(taken) < by_weight:
            return _rest(part, states, taken, by_weight, n, rng)
        rows = rng.integers(len(states), size=CHUNK)
        looked += CHUNK
        beliefs = states.take(rows)
        wanted_P = np.ones(CHUNK, bool) if len(taken) >= by_weight else _accepted(part, ceiling, beliefs, rng)
        if part.avoid_busy and not part.with_replacement:
            wanted_P &= ~beliefs.busy_P
        end = by_weight if len(taken) < by_weight else n
        for row in rows[wanted_P].tolist():
            if len(taken) < end and (part.with_replacement or row not in known):
                known.add(row)
                taken.append(row)
    return np.array(taken, int)


def _accepted(part: Weighted, ceiling: float, beliefs: Beliefs, rng: np.random.Generator) -> np.ndarray:
    return rng.random(len(beliefs)) * ceiling < part.weight(beliefs)


def _rest(
    part: Weighted, states: States, taken: list[int], by_weight: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """What is missing, drawn from all that were not taken: good weights are too rare for chunks."""
    beliefs = states.all()
    weight_P = part.weight(beliefs)
    if part.with_replacement:
        drawn = rng.choice(len(states), size=by_weight - len(taken), p=probability(weight_P))
        return np.concatenate([taken, drawn, rng.integers(len(states), size=n - by_weight)]).astype(int)
    left_P = np.ones(len(states), bool)
    left_P[taken] = False
    left = np.flatnonzero(left_P)
    busy_P = (beliefs.busy_P if part.avoid_busy else np.zeros(len(states), bool))[left]
    first = _lowest(_race(probability(weight_P[left]), rng), busy_P, by_weight - len(taken))
    key_P = rng.random(len(left))
    key_P[first] = np.inf
    more = _lowest(key_P, busy_P, n - by_weight)
    return np.concatenate([taken, left[first], left[more]]).astype(int)


def best(part: Keyed, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """The `n` lowest keys, best first. `UserError` without replacement when there are fewer prompts.

    With replacement each place takes the best of its own candidates, drawn at random: pool / n of them.
    """
    enough(states, min(n, 1) if part.with_replacement else n)
    if part.with_replacement:
        return _best_each(part, states, n, rng)
    rows = _candidates(part, states, n, rng)
    beliefs = states.take(rows) if len(rows) < len(states) else states.all()
    return rows[pick(part.key(beliefs, n, rng), beliefs, n, part.uniform_share, part.avoid_busy, rng)]


def _best_each(part: Keyed, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    if not n:
        return np.empty(0, int)
    each = max((part.pool or len(states)) // n, 2)
    rows_NC = rng.integers(len(states), size=(n, each))
    key_NC = part.key(states.take(rows_NC.ravel()), n, rng).reshape(n, each)
    chosen = rows_NC[np.arange(n), key_NC.argmin(axis=1)]
    return np.where(rng.random(n) < part.uniform_share, rows_NC[:, 0], chosen)


def _by_quota(part: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    enough(states, n)
    rows = _candidates(part, states, n, rng)
    beliefs = states.take(rows)
    if len(rows) < len(states) and _lacks(part, beliefs, n):
        rows, beliefs = np.arange(len(states)), states.all()
    return rows[pick(part.key(beliefs, n, rng), beliefs, n, part.uniform_share, part.avoid_busy, rng)]


def _lacks(part: Any, beliefs: Beliefs, n: int) -> bool:
    """Whether some class has more places than prompts here that are not in flight."""
    share_C = part.places(beliefs)
    there_C = np.bincount(part.classes(beliefs)[~beliefs.busy_P], minlength=len(share_C))
    return bool((there_C < apportioned(share_C, n)).any())


def _candidates(part: Keyed, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows to look at: `pool` at random where there are more, in order."""
    pool = max(part.pool, 4 * n) if part.pool else 0
    if not pool or len(states) <= pool:
        return np.arange(len(states))
    return np.sort(rng.choice(len(states), size=pool, replace=False, shuffle=False))


def _by_class(part: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """With replacement: each place draws a class by its share, then a prompt of it; of an empty class any prompt."""
    enough(states, min(n, 1))
    if not n:
        return np.empty(0, int)
    some = part.pool and len(states) > part.pool
    rows_P = rng.integers(len(states), size=part.pool) if some else np.arange(len(states))
    beliefs = states.take(rows_P)
    if some and _lacks(part, beliefs, n):
        rows_P, beliefs = np.arange(len(states)), states.all()
    class_P, share_C = part.classes(beliefs), part.places(beliefs)
    order = np.argsort(class_P, kind="stable")
    starts_C, ends_C = (np.searchsorted(class_P[order], np.arange(len(share_C)), side) for side in ("left", "right"))
    class_N = rng.choice(len(share_C), size=n, p=probability(share_C))
    random_N = (starts_C == ends_C)[class_N] | (rng.random(n) < part.uniform_share)
    first_N = np.where(random_N, 0, starts_C[class_N])
    end_N = np.where(random_N, len(rows_P), ends_C[class_N])
    return rows_P[order[rng.integers(first_N, end_N)]]


def quotas(class_P: np.ndarray, share_C: np.ndarray, states: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
    """Random keys with which the n lowest hold each class's share, as far as it has prompts that are not in flight.

    Places are whole: the largest remainders get what is left over. What a class lacks goes to the others at random.
    """
    key_P = rng.random(len(states))
    later_P = key_P + states.busy_P
    order = np.argsort(class_P.astype(np.uint16), kind="stable")
    ends_C = np.cumsum(np.bincount(class_P, minlength=len(share_C)))
    within_P = np.zeros(len(states), bool)
    for rows, wanted in zip(np.split(order, ends_C[:-1]), apportioned(share_C, n), strict=True):
        if 0 < wanted < len(rows):
            rows = rows[np.argpartition(later_P[rows], wanted - 1)[:wanted]]
        within_P[rows if wanted else []] = True
    return key_P + ~within_P


def apportioned(share_C: np.ndarray, n: int) -> np.ndarray:
    """n places by share, whole: rounded down, and one more for the largest remainders.

    >>> apportioned(np.array([0.5, 0.3, 0.2]), 4).tolist()
    [2, 1, 1]
    """
    exact_C = n * share_C / share_C.sum()
    whole_C = np.floor(exact_C + 1e-9).astype(int)
    more = np.argsort(whole_C - exact_C, kind="stable")[: n - whole_C.sum()]
    whole_C[more] += 1
    return whole_C


def named(shares: Any, names: tuple[str, ...], rest: float) -> np.ndarray:
    """The value of each name in a mapping; `rest` where it says nothing."""
    return np.array([float(shares.get(name, rest)) for name in names])


def enough(states: States, n: int) -> None:
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
