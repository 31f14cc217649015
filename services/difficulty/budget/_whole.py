"""What the budgets share: rollouts in whole numbers that add up to the rollout."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from pipeline.errors import UserError
from pipeline.knobs import check
from services.difficulty.state import Beliefs


class Shared(ABC):
    """A budget that several prompts share: `n` rollouts each on the average, `low` to `high` for one of them.

    A part has the fields `n`, `low`, `high` and `at_once`, and says in `spend` how a total is shared out.

    Those that share are the groups of one step at most: steps that follow each other spend the same, whatever the lag.

    `at_once` is a wish: it waits only while the learner has the groups of a step without another issue, and never for
    more than a step. Small groups that end unused leave less than `n` for each of those that replace them; then they
    share what there is, `low` each at least, for a step needs so many groups. So the mean is `n` or, then, less.
    """

    n: int
    low: int
    high: int
    at_once: int

    def __post_init__(self) -> None:
        check(self)
        if not self.low <= self.n <= self.high:
            raise ValueError(f"n is {self.n}; accepted: from low, {self.low}, to high, {self.high}")

    @property
    def typical(self) -> int:
        """Rollouts of a prompt on the average."""
        return self.n

    @property
    def kept(self) -> int:
        """Places kept for a group until it has ended: as many as the one that replaces it needs."""
        return self.low

    def prompts(self, budget: int, groups: int = 0, step: int = 0) -> int:
        """How many prompts share the budget; 0 waits for more room, which only groups that are out can make."""
        most = min(budget // self.n, step or budget)
        if groups < step:
            return max(most, min(step - groups, budget // self.low))
        return most if budget >= self.n * min(self.at_once, step or self.at_once) else 0

    def __call__(self, states: Beliefs, budget: int) -> np.ndarray:
        """Rollouts of each prompt; their sum is n for each prompt or the budget, if that is less, to the rollout."""
        afford(len(states), self.low, budget)
        return self.spend(states, min(len(states) * self.n, budget))

    @abstractmethod
    def spend(self, states: Beliefs, total: int) -> np.ndarray:
        """Rollouts of each prompt, together `total`."""


def afford(prompts: int, each: int, budget: int) -> None:
    """Refuse more prompts than the budget holds at so many rollouts each."""
    if prompts * each > budget:
        raise UserError(f"{prompts} prompts of {each} rollouts were asked for; accepted: {budget} rollouts")


def rounded(wanted_P: np.ndarray, total: int, low: int, high: int) -> np.ndarray:
    """Whole numbers in [low, high] that add up to `total`, as close to the shares of `wanted_P` as they go.

    First the share of what is above `low`, then the largest remainders. `total` lies in [P * low, P * high].

    >>> rounded(np.array([1.0, 1.0, 2.0]), 9, 1, 4).tolist()
    [3, 2, 4]
    """
    given_P = np.full(len(wanted_P), low, int)
    wanted_P = np.where(wanted_P > 0, wanted_P, 1e-12)
    while (left := total - int(given_P.sum())) > 0:
        open_P = given_P < high
        more_P = np.where(open_P, wanted_P, 0.0)
        target_P = np.where(open_P, np.maximum(more_P / more_P.sum() * total, 0.0), 0.0)
        gap_P = np.where(open_P, np.maximum(target_P - given_P, 1e-9), 0.0)
        exact_P = np.minimum(left * gap_P / gap_P.sum(), high - given_P)
        whole_P = np.floor(exact_P + 1e-9).astype(int)
        if not whole_P.any():
            place = np.argsort(np.where(open_P, -(exact_P - whole_P), np.inf), kind="stable")[:left]
            whole_P[place[open_P[place]]] = 1
        given_P += whole_P
    return given_P
