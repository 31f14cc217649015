"""The nouns of the difficulty rooms: one prompt's statistics, what changes them, and the table that samplers read.

Estimates turn (`Stat`, `Observation`, step) into a `Stat`. Samplers and budgets never see statistics, only `Beliefs`:
whatever the estimate keeps, it states as pseudo-counts of right and wrong answers, so every sampler works with every
estimate.

Axes: P prompts, K statistics of an estimate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, NamedTuple, Protocol

import numpy as np


class Stat(NamedTuple):
    """One prompt's sufficient statistics, in the order of its estimate's `columns`, and the step of the last decay."""

    values: tuple[float, ...]
    decayed_step: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """What came of one rollout: accuracy in [0, 1]; lag in versions from its oldest token to the newest known."""

    accuracy: float
    lag: int = 0


@dataclass(frozen=True)
class History:
    """What happened to P prompts, for samplers that look beyond the belief.

    A turn: what came at one learner step. Where no learner is, a batch of outcomes counts as a step here.
    """

    recent_PR: np.ndarray
    """Newest outcomes, the newest last; NaN where there are fewer."""
    idle_P: np.ndarray
    """Steps since the newest outcome; inf when there is none."""
    tally_P: np.ndarray
    """Turns so far, each worth 0.9 per step since."""
    turns_P: np.ndarray
    """Turns so far."""
    variance_P: np.ndarray
    """Population variance of the turns' mean accuracies."""
    last_mean_P: np.ndarray
    """Mean accuracy of the newest turn; NaN when there is none."""
    diversity_P: np.ndarray
    """How different the rollouts of the newest group were, in [0, 1]; NaN when not measured."""
    domain_P: np.ndarray
    """Number of the prompt's domain, in the order of first sight; `domains` of the states names them."""

    @classmethod
    def none(cls, size: int) -> History:
        """Of prompts that nothing is known of."""
        nan_P, zero_P = np.full(size, np.nan), np.zeros(size)
        return cls(np.full((size, 0), np.nan), np.full(size, np.inf), zero_P, zero_P, zero_P, nan_P, nan_P, zero_P)

    def take(self, rows: np.ndarray) -> History:
        """Of some prompts, in that order."""
        return History(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


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
    step: int = 0
    """The learner's step; where no learner is, batches of outcomes so far."""
    known: Callable[[], History] | None = None
    """Works out what happened to them: most samplers never ask."""
    domains: tuple[str, ...] = ()
    """Names of the domains, by number."""

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

    @cached_property
    def history(self) -> History:
        """What happened to them."""
        return History.none(len(self)) if self.known is None else self.known()

    @property
    def busy(self) -> int:
        """How many are in flight."""
        return int(self.busy_P.sum())

    def take(self, rows: np.ndarray) -> Beliefs:
        """The beliefs of some prompts, in that order."""
        columns = (self.alpha_P, self.beta_P, self.visits_P, self.busy_P)
        known = None if self.known is None else lambda: self.history.take(rows)
        taken = (column[rows] for column in columns)
        return Beliefs(*taken, self.drawn, self.seed, self.step, known, self.domains)

    def all(self) -> Beliefs:
        """Every one."""
        return self

    def tried(self, within: float = math.inf) -> np.ndarray:
        """Rows outside of which no prompt has an outcome at most `within` steps ago, in order."""
        return np.flatnonzero((self.visits_P > 0) & (self.history.idle_P <= within))


class States(Protocol):
    """Prompts to choose from: `Beliefs` themselves, or a view that works them out for the rows that are taken."""

    drawn: int
    seed: int
    step: int

    def __len__(self) -> int: ...

    @property
    def busy(self) -> int:
        """How many are in flight."""
        ...

    def take(self, rows: np.ndarray) -> Beliefs:
        """The beliefs of some prompts, in that order."""
        ...

    def all(self) -> Beliefs:
        """The beliefs of every prompt: costs as much as there are prompts."""
        ...

    def tried(self, within: float = math.inf) -> np.ndarray:
        """Rows outside of which no prompt has an outcome at most `within` steps ago, in order."""
        ...


class Estimate(Protocol):
    """One way to believe. Every decay is lazy: it is applied when a prompt is touched or looked at, never to all."""

    columns: ClassVar[tuple[str, ...]]
    """Names of the K statistics."""

    def initial(self) -> Stat:
        """What is believed of a prompt never seen."""
        ...

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """values_PK after one outcome each. The same bits for one prompt alone and among many."""
        ...

    def moved(self, values_PK: np.ndarray, change_P: np.ndarray) -> np.ndarray | None:
        """values_PK after the policy moved so many nats on each prompt; None when the estimate does not listen."""
        ...

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P) as of `step`; reads only."""
        ...

    def __call__(self, stat: Stat, observation: Observation, step: int) -> Stat:
        """`observe` for one prompt."""
        ...

    def shifted(self, stat: Stat, mean_abs_logprob_change: float, step: int) -> Stat:
        """`moved` for one prompt; `stat` itself when the estimate does not listen."""
        ...


def name_of(estimate: Estimate) -> str:
    """The estimate's part."""
    return type(estimate).__module__.rpartition(".")[2]


def written_by(estimate: Estimate) -> str:
    """The estimate and all its knobs: the same statistics follow from the same inputs where this is the same.

    >>> from services.difficulty.estimate.ema import Ema
    >>> written_by(Ema(rate=0.25))
    'ema(lag_discount=1, prior=0.5, rate=0.25)'
    """
    told = {each.name: getattr(estimate, each.name) for each in dataclasses.fields(estimate) if each.init}  # type: ignore[arg-type]
    # A run file may say 1 for 1.0.
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in told.items()
    }
    return f"{name_of(estimate)}({', '.join(f'{name}={whole[name]!r}' for name in sorted(whole))})"


class OneByOne:
    """`Estimate` for single prompts, from its columns' form, so that both give the same bits."""

    def __call__(self, stat: Stat, observation: Observation, step: int) -> Stat:
        """The statistics after one outcome that arrived at `step`."""
        values_PK, decayed_P = np.array([stat.values]), np.array([stat.decayed_step])
        seen = (np.array([float(observation.accuracy)]), np.array([observation.lag]), np.array([step]))
        after_PK = self.observe(values_PK, decayed_P, *seen)  # type: ignore[attr-defined]
        return Stat(tuple(after_PK[0].tolist()), max(step, stat.decayed_step))

    def shifted(self, stat: Stat, mean_abs_logprob_change: float, step: int) -> Stat:
        """The statistics after the policy moved; `stat` itself when the estimate does not listen."""
        after_PK = self.moved(np.array([stat.values]), np.array([mean_abs_logprob_change]))
        return stat if after_PK is None else Stat(tuple(after_PK[0].tolist()), max(step, stat.decayed_step))

    def moved(self, values_PK: np.ndarray, change_P: np.ndarray) -> np.ndarray | None:
        """Most estimates do not listen to the policy's movement."""
        return None


class Sampler(Protocol):
    """One way to choose prompts."""

    def __call__(self, states: States, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`, in the order of choice. `UserError` when there are too few prompts."""
        ...

    def score(self, states: Beliefs) -> np.ndarray:
        """How much it likes each prompt, without a draw: shown to people, never chosen by."""
        ...


class Budget(Protocol):
    """One way to spend rollouts."""

    @property
    def typical(self) -> int:
        """Rollouts of a prompt on the average."""
        ...

    @property
    def kept(self) -> int:
        """Places that a group keeps until it has ended, though it holds fewer; 0 keeps what it holds."""
        ...

    def prompts(self, budget: int, groups: int = 0, step: int = 0) -> int:
        """How many prompts to choose when `budget` rollouts may be spent; 0 waits for more room.

        `groups` are out, `step` are those of an optimiser step: with fewer out the learner cannot make room by itself,
        and a budget that waits for it waits for ever.
        """
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


TABLE = 1 << 16
"""Exponents below this are looked up."""


@lru_cache(maxsize=64)
def _power_table(base: float, size: int) -> np.ndarray:
    return np.array([power(base, exponent) for exponent in range(size)])


def powers(base: float, exponent_P: np.ndarray) -> np.ndarray:
    """`power` for a column of exponents >= 0.

    >>> powers(0.5, np.array([0, 3])).tolist()
    [1.0, 0.125]
    """
    largest = int(exponent_P.max(initial=0))
    if base == 1.0:
        return np.ones(len(exponent_P))
    if largest >= TABLE:
        return np.array([power(base, exponent) for exponent in exponent_P.tolist()])
    return _power_table(base, 1 << largest.bit_length())[exponent_P]
