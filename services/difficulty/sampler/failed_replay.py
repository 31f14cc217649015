"""Prompts that failed lately are tried again: a share of every batch, the rest at random from the others.

    failed lately: last mean accuracy <= at_most, newest outcome at most `within` steps ago

Source: the common practice of replaying hard examples; the numbers are ours.

Odd case: when too few failed lately, the others fill up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _pick
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class FailedReplay:
    """A second chance.

    Worked number: a share of 0.5 of 4 places is 2.

    >>> from services.difficulty.state import History
    >>> import dataclasses
    >>> ones, last = np.ones(8), np.array([0, 0, 0, 1, 1, 1, np.nan, np.nan])
    >>> history = dataclasses.replace(History.none(8), last_mean_P=last, idle_P=np.zeros(8))
    >>> states = Beliefs(ones, ones, ones, ones > 1, known=lambda: history)
    >>> chosen = FailedReplay(share=0.5)(states, 4, np.random.default_rng(0))
    >>> int((last[chosen] == 0).sum())
    2
    """

    share: float = knob(0.25, "Share of prompts that failed lately.", ge=0, lt=1)
    at_most: float = knob(0.0, "Last mean up to which a prompt failed.", ge=0, le=1)
    within: int = knob(50, "How long ago is lately.", unit="steps", ge=1)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    pool: int = knob(32768, "Candidates drawn at random where there are more prompts; 0 looks at all.", ge=0)

    confidence: ClassVar[str] = "standard"
    __post_init__ = check

    def __call__(self, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`, best first; without replacement `UserError` when there are fewer prompts."""
        return _pick.best(self, states, n, rng)

    def failed(self, states: Beliefs) -> np.ndarray:
        """Whether each prompt failed lately."""
        return (states.history.last_mean_P <= self.at_most) & (states.history.idle_P <= self.within)

    def key(self, states: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random keys that fill the failed prompts' places."""
        return _pick.quotas(self.failed(states).astype(int), np.array([1 - self.share, self.share]), states, n, rng)

    def score(self, states: Beliefs) -> np.ndarray:
        """The share of a prompt's kind per prompt of it."""
        kind_P = self.failed(states).astype(int)
        return _pick.probability(np.array([1 - self.share, self.share])[kind_P] / np.bincount(kind_P)[kind_P])
