"""Prompts that failed lately are tried again: a share of every batch, the rest at random from the others.

    failed lately: last mean accuracy <= at_most, newest outcome at most `within` steps ago

Places are whole: where a choice's share is not, it is rounded down or up at random, so that it holds on the average of
many choices, also of one prompt each.

Source: the common practice of replaying hard examples; the numbers are ours.

Odd case: when too few failed lately, the others fill up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _quota
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class FailedReplay(_quota.ByQuota):
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
    pool: int = knob(8192, "Candidates at random, and all tried lately where too few failed; 0: all.", ge=0)

    confidence: ClassVar[str] = "standard"
    __post_init__ = check

    def classes(self, states: Beliefs) -> np.ndarray:
        """1 for prompts that failed lately, 0 for the others."""
        history = states.history
        return ((history.last_mean_P <= self.at_most) & (history.idle_P <= self.within)).astype(int)

    def apart(self, states: States) -> np.ndarray:
        """What was not tried lately did not fail lately."""
        return states.tried(self.within)

    def places(self, states: Beliefs) -> np.ndarray:
        """Share of the others, and of those that failed."""
        return np.array([1 - self.share, self.share])
