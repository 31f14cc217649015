"""The nouns of the difficulty rooms: one prompt's statistics, what changes them, and the table that samplers read.

Estimates turn (`Stat`, `Observation`, step) into a `Stat`. Samplers and budgets never see statistics, only `Beliefs`:
whatever the estimate keeps, it states as pseudo-counts of right and wrong answers, so every sampler works with every
estimate.

Axes: P prompts, K statistics of an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Stat:
    """One prompt's sufficient statistics, in the order of its estimate's `columns`, and the step of the last decay."""

    values: tuple[float, ...]
    decayed_step: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """What came of one rollout: accuracy in [0, 1]; lag in versions from its oldest token to the newest known."""

    accuracy: float
    lag: int = 0


@dataclass(frozen=True)
class Beliefs:
    """What is believed of P prompts as of one step: pseudo-counts (prior included), and what samplers need beside."""

    alpha_P: np.ndarray
    beta_P: np.ndarray
    visits_P: np.ndarray
    busy_P: np.ndarray
    """Whether rollouts of the prompt are in flight."""
    drawn: int = 0
    """Prompts drawn since the run began."""
    seed: int = 0
    """The run's seed."""

    def __len__(self) -> int:
        return len(self.alpha_P)

    @property
    def mean_P(self) -> np.ndarray:
        """Posterior mean of the pass rate, in [0, 1]."""
        return self.alpha_P / (self.alpha_P + self.beta_P)

    @property
    def effective_n_P(self) -> np.ndarray:
        """Effective number of observations behind the mean, the prior's pseudo-counts included."""
        return self.alpha_P + self.beta_P

    def take(self, rows: np.ndarray) -> Beliefs:
        """The beliefs of some prompts, in that order."""
        columns = (self.alpha_P, self.beta_P, self.visits_P, self.busy_P)
        return Beliefs(*(column[rows] for column in columns), drawn=self.drawn, seed=self.seed)


class Estimate(Protocol):
    """One way to believe. Every decay is lazy: it is applied when a prompt is touched or looked at, never to all."""

    columns: ClassVar[tuple[str, ...]]
    """Names of the K statistics."""

    def initial(self) -> Stat:
        """What is believed of a prompt never seen."""
        ...

    def __call__(self, stat: Stat, observation: Observation, step: int) -> Stat:
        """The statistics after one outcome that arrived at `step`."""
        ...

    def shifted(self, stat: Stat, mean_abs_logprob_change: float, step: int) -> Stat:
        """The statistics after the policy moved so many nats on this prompt; `stat` itself when it does not listen."""
        ...

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P) as of `step`; reads only."""
        ...


class Sampler(Protocol):
    """One way to choose prompts."""

    def __call__(self, states: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`, in the order of choice. `UserError` when there are too few prompts."""
        ...

    def score(self, states: Beliefs) -> np.ndarray:
        """How much it likes each prompt, without a draw: shown to people, never chosen by."""
        ...


class Budget(Protocol):
    """One way to spend rollouts."""

    @property
    def largest(self) -> int:
        """Most rollouts that one prompt can get."""
        ...

    def prompts(self, budget: int) -> int:
        """How many prompts to choose when `budget` rollouts may be spent; 0 waits for more room."""
        ...

    def __call__(self, states: Beliefs, budget: int) -> np.ndarray:
        """Rollouts of each chosen prompt, >= 0; their sum is at most `budget`."""
        ...


def power(base: float, exponent: int) -> float:
    """`base ** exponent`, the one form that every decay uses: 3 steps at once, never 3 times one.

    Python's own power for single prompts and for columns alike: numpy's may differ from it in the last bit, and then
    what is believed would depend on how many prompts are looked at.

    >>> power(0.5, 3)
    0.125
    """
    return base**exponent


@lru_cache(maxsize=64)
def _power_table(base: float, size: int) -> np.ndarray:
    return np.array([power(base, exponent) for exponent in range(size)])


def powers(base: float, exponent_P: np.ndarray) -> np.ndarray:
    """`power` for a column of exponents >= 0.

    >>> powers(0.5, np.array([0, 3])).tolist()
    [1.0, 0.125]
    """
    size = 1 << int(exponent_P.max(initial=0)).bit_length()
    return _power_table(base, size)[exponent_P]
