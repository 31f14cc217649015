"""The prompts whose accuracy varied most over time (1-shot RLVR), and no others.

    score_p = population standard deviation of the mean accuracy of the prompt's turns

Source: authors' code (np.std over epochs, ranked descending; one prompt is duplicated to fill a batch). A turn is what
came back at one learner step. `best` prompts are kept and chosen in turn, each copy a group of its own; whose turn it
is follows from how many prompts the run has drawn, so their numbers are equal also where they are chosen one by one.

Odd cases. Every choice looks at all prompts. Until prompts have two turns their score is 0 and the choice is by row:
give it a run's posterior, or mix in a uniform share. Copies are the point, so it always chooses with replacement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _pick
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class HistoricalVariance:
    """The most variable prompts, in copies.

    Worked number: of deviations 0.354, 0 and 0.433 the third comes first.

    >>> from services.difficulty.state import History
    >>> import dataclasses
    >>> ones = np.ones(3)
    >>> history = dataclasses.replace(History.none(3), variance_P=np.array([0.125, 0, 0.1875]))
    >>> states = Beliefs(ones, ones, ones, ones > 1, known=lambda: history)
    >>> HistoricalVariance()(states, 3, np.random.default_rng(0)).tolist()
    [2, 2, 2]
    """

    best: int = knob(1, "How many prompts are kept.", unit="prompts", ge=1)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)

    confidence: ClassVar[str] = "code"
    __post_init__ = check

    def __call__(self, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`, most of them copies; `UserError` when there is no prompt."""
        _pick.enough(states, min(n, 1))
        if not n:
            return np.empty(0, int)
        kept = _pick.lowest(-self.score(states.all()), self.best)
        chosen = kept[(states.drawn + np.arange(n)) % len(kept)]
        other = rng.random(n) < self.uniform_share
        return np.where(other, rng.integers(len(states), size=n), chosen)

    def score(self, states: Beliefs) -> np.ndarray:
        """Standard deviation of the turns' means."""
        return np.sqrt(states.history.variance_P)
