"""Uniform: shuffled passes over the prompts, each prompt once per pass. What every other sampler is compared with.

Pass k is a permutation drawn from (the run's seed, k); where a run stands follows from how many prompts it has drawn.
So nothing but that count needs keeping, asking twice gives the same answer, and more prompts than there are is simply
more than one pass.

Odd cases: when prompts are added, the passes are counted over the new number, so the pass under way starts afresh.
Prompts in flight are not avoided: that would bend the pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class Uniform:
    """Every prompt equally often.

    Worked number: two passes over 3 prompts hold each of them twice.

    >>> ones = np.ones(3)
    >>> states = Beliefs(ones, ones, ones, ones > 1)
    >>> chosen = Uniform()(states, 6, np.random.default_rng(0))
    >>> sorted(chosen[:3].tolist()), sorted(chosen[3:].tolist())
    ([0, 1, 2], [0, 1, 2])
    """

    with_replacement: bool = knob(False, "Draw each time from all prompts, with the generator, instead of in passes.")

    __post_init__ = check

    def __call__(self, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`."""
        size = len(states)
        if n and not size:
            raise UserError(f"{n} prompts were asked for and there are none; accepted: at least one registered prompt")
        if self.with_replacement:
            return rng.integers(size, size=n) if n else np.empty(0, int)
        first, end = states.drawn, states.drawn + n
        chosen = [
            _pass(states.seed, begun // size, size)[max(first - begun, 0) : end - begun]
            for begun in range(first - first % max(size, 1), end, max(size, 1))
        ]
        return np.concatenate([np.empty(0, int), *chosen])

    def score(self, states: Beliefs) -> np.ndarray:
        """Probability of each prompt, 1 / P."""
        return np.full(len(states), 1.0 / max(len(states), 1))


@lru_cache(maxsize=2)
def _pass(seed: int, index: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, index]).permutation(np.arange(size, dtype=np.int32))
