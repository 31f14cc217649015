"""Taking the lowest keys: of a draw (Thompson sampling) or of a score.

Without replacement it looks at `pool` candidates drawn at random, when there are more. Its choice has the full draw's
distribution to the extent that keys vary less inside the band of the chosen than between prompts: for 256 of 32,768 the
band is the best 0.8 %.

With replacement each place has a draw of its own over distinct candidates of its own, and takes the best: pool / n of
them, at least `EACH`, and all prompts where there are at most twice as many. So its band is 1 / 128 or narrower. A
prompt has one draw per place: the best of several would favour what little is known of.

A chi-square test holds both to the full draw (tests/services/difficulty/sampler/test_large.py).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from services.difficulty.sampler import _pick
from services.difficulty.state import Beliefs, States

EACH = 128
"""Fewest candidates of a place, where places are drawn with replacement from many prompts."""
TOGETHER = 1 << 18
"""Keys that are drawn together: what bounds the memory."""


class Keyed(_pick.Pooled, Protocol):
    """A sampler that takes the lowest keys."""

    def key(self, states: Beliefs, rng: np.random.Generator) -> np.ndarray:
        """key_P, the lowest are taken."""
        ...


class ByKey:
    """What samplers that take the lowest keys have in common; they are `Keyed`."""

    def __call__(self: Any, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`, best first; without replacement `UserError` when there are fewer prompts."""
        return best(self, states, n, rng)


def best(part: Keyed, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    """The `n` lowest keys, best first; with replacement the lowest of each place.

    `UserError` without replacement when there are fewer prompts.
    """
    _pick.enough(states, min(n, 1) if part.with_replacement else n)
    if part.with_replacement:
        return _again(part, states, n, rng)
    rows = _pick.candidates(part, states, n, rng)
    beliefs = states.take(rows) if len(rows) < len(states) else states.all()
    if len(rows) < len(states) and 2 * _pick.avoided(part, beliefs).sum() > len(rows):
        # Mostly in flight: among the candidates there may be fewer others than places.
        rows, beliefs = np.arange(len(states)), states.all()
    return rows[_pick.pick(part, part.key(beliefs, rng), beliefs, n, rng)]


def _again(part: Keyed, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
    if part.avoid_busy and len(states) < 2 * states.busy < 2 * len(states):
        # Mostly in flight: candidates are drawn among the others, or a place might have none.
        beliefs = states.all()
        rows = _pick.open_rows(part, beliefs)
        return rows[_again(part, beliefs.take(rows), n, rng)]
    each = max(part.pool // max(n, 1), EACH) if part.pool else len(states)
    each = each if 2 * each < len(states) else len(states)
    together = max(TOGETHER // max(each, 1), 1)
    chosen = [_places(part, states, min(together, n - at), each, rng) for at in range(0, n, together)]
    return np.concatenate([np.empty(0, int), *chosen])


def _places(part: Keyed, states: States, n: int, each: int, rng: np.random.Generator) -> np.ndarray:
    """The best of each of n places, by keys of its own of `each` candidates, those that came twice counted once."""
    size = len(states)
    rows_NC = np.sort(rng.integers(size, size=(n, each))) if each < size else np.tile(np.arange(size), (n, 1))
    beliefs = states.take(rows_NC.ravel())
    key_NC = part.key(beliefs, rng).reshape(n, each)
    random_N = rng.random(n) < part.uniform_share
    key_NC[random_N] = rng.random((random_N.sum(), each))
    # At most half are in flight: that none of 128 candidates is left happens once in 2 ** 128 places.
    out_NC = (_pick.avoided(part, beliefs) & (states.busy < size)).reshape(n, each)
    out_NC[:, 1:] |= rows_NC[:, 1:] == rows_NC[:, :-1]
    return rows_NC[np.arange(n), np.where(out_NC, np.inf, key_NC).argmin(axis=1)]
