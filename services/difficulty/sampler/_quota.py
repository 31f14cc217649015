"""Giving each class of prompts a share of the places.

    exact_c = n * share_c / sum of shares;   whole parts, and one more where a point of u, u + 1, ... falls into the
    class's part of the remainders laid end to end, u uniform in [0, 1) for each choice

So a class's places are within one of its exact number, and on the average that number, also where places come one at a
time: the largest remainder would then give all to one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pipeline.knobs import Knob
from services.difficulty.sampler import _pick
from services.difficulty.state import Beliefs, States


class Quota(_pick.Pooled, Protocol):
    """A sampler with a share for each class."""

    def classes(self, states: Beliefs) -> np.ndarray:
        """Which class each prompt is in: 0, 1, ..."""
        ...

    def places(self, states: Beliefs) -> np.ndarray:
        """Each class's share, in proportion."""
        ...

    def apart(self, states: States) -> np.ndarray | None:
        """Rows outside of which all prompts are of one class; None when nothing is known of that."""
        ...


class ByQuota:
    """What samplers that give each class of prompts a share of the places have in common; they are `Quota`.

    They look at `pool` candidates; where some class lacks prompts among them for its places, wherever there may be more
    of that class: among those `apart` or, where it may be the class of all others, among all.
    """

    def __call__(self: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`; without replacement `UserError` when there are fewer prompts."""
        _pick.enough(states, min(n, 1) if self.with_replacement else n)
        if not n:
            return np.empty(0, int)
        rows, beliefs, wanted_C = _looked_at(self, states, n, rng)
        choose = _again if self.with_replacement else _once
        return rows[choose(self, beliefs, wanted_C, rng)]

    def apart(self, states: States) -> np.ndarray | None:
        """Any prompt may be of any class."""
        return None

    def score(self: Any, states: Beliefs) -> np.ndarray:
        """The share of a prompt's class per prompt of it."""
        class_P, share_C = self.classes(states), self.places(states)
        return _pick.probability(share_C[class_P] / np.bincount(class_P, minlength=len(share_C))[class_P])


def _looked_at(part: Quota, states: States, n: int, rng: np.random.Generator) -> tuple[np.ndarray, Beliefs, np.ndarray]:
    """The rows to choose among, what is believed of them, and each class's places."""
    rows, offset = _pick.candidates(part, states, n, rng), rng.random()
    beliefs = states.take(rows)
    wanted_C = apportioned(part.places(beliefs), n, offset)
    if len(rows) < len(states) and (lacking := _lacking(part, beliefs, wanted_C)):
        wider = _wider(part, states, rows, beliefs, lacking)
        if len(wider) > len(rows):
            rows, beliefs = wider, states.take(wider) if len(wider) < len(states) else states.all()
            wanted_C = apportioned(part.places(beliefs), n, offset)
    return rows, beliefs, wanted_C


def _lacking(part: Quota, beliefs: Beliefs, wanted_C: np.ndarray) -> set[int]:
    """Classes with more places than prompts here that are not avoided."""
    open_P = ~_pick.avoided(part, beliefs)
    count_C = np.bincount(part.classes(beliefs)[open_P], minlength=len(wanted_C))
    return set(np.flatnonzero(count_C < wanted_C).tolist())


def _wider(part: Quota, states: States, rows: np.ndarray, beliefs: Beliefs, lacking: set[int]) -> np.ndarray:
    """These rows and every other that may be of a class that is lacking, in order."""
    apart, wider_P = part.apart(states), np.zeros(len(states), bool)
    if apart is not None:
        wider_P[apart] = True
        others = np.flatnonzero(~wider_P[rows])
        if len(others) and int(part.classes(beliefs)[others[0]]) not in lacking:
            wider_P[rows] = True
            return np.flatnonzero(wider_P)
    return np.arange(len(states))


def _once(part: Quota, beliefs: Beliefs, wanted_C: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without replacement: the lowest of random keys that put each class's places first."""
    key_P = rng.random(len(beliefs))
    within_P = quotas(part.classes(beliefs), wanted_C, key_P + _pick.avoided(part, beliefs))
    return _pick.pick(part, key_P + ~within_P, beliefs, wanted_C.sum(), rng)


def _again(part: Quota, beliefs: Beliefs, wanted_C: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With replacement: each place takes any prompt of its class; of an empty class, any prompt."""
    open_P, n = _pick.open_rows(part, beliefs), int(wanted_C.sum())
    class_P = part.classes(beliefs)[open_P]
    order = np.argsort(class_P, kind="stable")
    starts_C, ends_C = (np.searchsorted(class_P[order], np.arange(len(wanted_C)), side) for side in ("left", "right"))
    class_N = rng.permutation(np.repeat(np.arange(len(wanted_C)), wanted_C))
    random_N = (starts_C == ends_C)[class_N] | (rng.random(n) < part.uniform_share)
    first_N = np.where(random_N, 0, starts_C[class_N])
    end_N = np.where(random_N, len(open_P), ends_C[class_N])
    return open_P[order[rng.integers(first_N, end_N)]]


def quotas(class_P: np.ndarray, wanted_C: np.ndarray, key_P: np.ndarray) -> np.ndarray:
    """Whether each prompt is among the `wanted` lowest keys of its class, or its class has no more than wanted.

    >>> quotas(np.array([0, 0, 1, 1]), np.array([1, 2]), np.array([0.9, 0.1, 0.5, 0.7])).tolist()
    [False, True, True, True]
    """
    order = np.argsort(class_P.astype(np.uint16), kind="stable")
    ends_C = np.cumsum(np.bincount(class_P, minlength=len(wanted_C)))
    within_P = np.zeros(len(key_P), bool)
    for rows, wanted in zip(np.split(order, ends_C[:-1]), wanted_C, strict=True):
        if 0 < wanted < len(rows):
            rows = rows[np.argpartition(key_P[rows], wanted - 1)[:wanted]]
        within_P[rows if wanted else []] = True
    return within_P


def apportioned(share_C: np.ndarray, n: int, offset: float) -> np.ndarray:
    """n places by share, whole: exact numbers rounded down or up, by `offset` in [0, 1); see above.

    Worked number: of 4 places 2, 1.2 and 0.8 are exact, so one place more is for the second or the third: laid end to
    end their remainders end at 0.2 and 1, and the second has it where 0.2 + offset reaches 1.

    >>> [apportioned(np.array([0.5, 0.3, 0.2]), 4, offset).tolist() for offset in (0.0, 0.7, 0.9)]
    [[2, 1, 1], [2, 1, 1], [2, 2, 0]]
    """
    exact_C = n * share_C / share_C.sum()
    whole_C = np.floor(exact_C + 1e-9).astype(int)
    more = n - whole_C.sum()
    ends_C = np.cumsum(np.maximum(exact_C - whole_C, 0.0))
    # The remainders sum to a whole number, whatever their last bits: a class without a share must never have a place.
    ends_C[ends_C > more - 1e-9] = more
    reached_C = np.minimum(np.floor(ends_C + offset).astype(int), more)
    reached_C[-1] = more
    return whole_C + np.diff(reached_C, prepend=0)


def check_named(each: Knob, values: Mapping[str, Any] | None) -> None:
    """Refuse values by name that `each` does not accept. Raises `ValueError`."""
    for name, value in (values or {}).items():
        if not isinstance(name, str):
            raise ValueError(f"knob {each.name} has the name {name!r}; accepted: a text")
        if not each.fits(value):
            raise ValueError(f"knob {each.name} of {name!r} is {value!r}; accepted: {each.accepted}")


def named(shares: Any, names: tuple[str, ...], rest: float) -> np.ndarray:
    """The value of each name in a mapping; `rest` where it says nothing."""
    return np.array([float(shares.get(name, rest)) for name in names])
