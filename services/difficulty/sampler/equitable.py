"""Places go to the domains where one more rollout is worth most (adaptive sampling for equitable training sets).

    err_g(n) = a_g * n ** -b,   marginal utility per cost  a_g * b * n ** (-b - 1) / c_g,   equal over domains

Source: arXiv:2202.01327, abstract; the power law is a guess. n is what a domain was tried so far (per prompt seen
here), and a follows from its error now: a = err * n ** b. The places of a batch are divided by the domains' current
marginal utility per cost, and drawn at random inside a domain.

Odd cases. A domain never tried has n = 1 and its prior's error. One domain alone is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import Knob, check, knob
from services.difficulty.sampler import _quota
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Equitable(_quota.ByQuota):
    """Domains by marginal utility.

    Worked number: a = 1, b = 0.5 for both, costs 1 and 4: of 1000 to spend 386.49 and 153.38 tries are the best split,
    so there both domains are worth the same.

    >>> n = np.array([386.49, 153.38])
    >>> (1e5 * Equitable(b=0.5).utility(n ** -0.5, n, np.array([1.0, 4.0]))).round(2).tolist()
    [6.58, 6.58]
    """

    b: float = knob(0.5, "Exponent of the learning curve. A guess.", gt=0)
    costs: dict | None = knob(None, "Cost of a rollout by domain; 1 where it says nothing.")
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    pool: int = knob(8192, "Candidates at random; all where a class lacks among them; 0: all.", ge=0)

    confidence: ClassVar[str] = "guess"
    by_domain: ClassVar[str] = "costs"

    def __post_init__(self) -> None:
        check(self)
        _quota.check_named(Knob("costs", "float", gt=0), self.costs)

    def utility(self, error_G: np.ndarray, tried_G: np.ndarray, cost_G: np.ndarray) -> np.ndarray:
        """Fall of the error by one more try, per cost: a * b * n ** (-b - 1) / c with a = error * n ** b."""
        return error_G * self.b / tried_G / cost_G

    def classes(self, states: Beliefs) -> np.ndarray:
        """Each prompt's domain."""
        return states.history.domain_P.astype(int)

    def places(self, states: Beliefs) -> np.ndarray:
        """Marginal utility per cost of each domain."""
        domain_P, size = self.classes(states), max(len(states.domains), 1)
        prompts_G = np.maximum(np.bincount(domain_P, minlength=size), 1)
        error_G = np.bincount(domain_P, 1 - states.mean_P, minlength=size) / prompts_G
        tried_G = np.maximum(np.bincount(domain_P, states.visits_P, minlength=size), 1)
        cost_G = _quota.named(self.costs or {}, states.domains or ("",), 1.0)
        return np.maximum(self.utility(error_G, tried_G, cost_G), 1e-12)

    def score(self, states: Beliefs) -> np.ndarray:
        """The utility of a prompt's domain."""
        return self.places(states)[self.classes(states)]
