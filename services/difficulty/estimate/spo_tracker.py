"""SPO's value tracker (arXiv:2509.13232; authors' code): a Beta that forgets as far as the policy moved.

    rho = clamp(2 ** (-D / d_half), rho_min, rho_max)      D: mean |change of log-prob| on the prompt's last trajectory
    alpha <- rho * alpha + r,   beta <- rho * beta + (1 - r)
    the same as  v <- v + (r - v) / (rho * N + 1)  with v = alpha / N, N = alpha + beta, also for fractions r

The paper has r and D at once; here the verdict and the step that measured D arrive apart. An outcome therefore waits as
a fresh count until its D arrives: then both are applied as above. While it waits, it is believed with rho_max (what
the paper gives a first visit). An outcome whose D never comes (its rollout was dropped) is settled with rho_max before
the next step's outcome is added. A D that arrives before its outcome is kept (`forget`) and applied with it. Every
outcome counts once. Of one outcome per step the order does not matter. Of a group (several outcomes of one step) it
does: D after them all forgets once for the whole turn, as in the paper; a D that comes before goes to the next of them
alone, and those after it wait for a D of their own as above, so that turn forgets twice.

The initial counts: n0 offline tries with S right give N0 * (S + 1/2) / (n0 + 1), N0 = 1 / (1 - rho_min); without any,
1/2 and 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.state import OneByOne, Stat, powers


@dataclass(frozen=True)
class SpoTracker(OneByOne):
    """The value that single-stream policy optimisation subtracts.

    Worked number: 3 of 8 right offline, then r = 1 and the policy moved by 0.005 nats.

    >>> from services.difficulty.state import Observation
    >>> tracker = SpoTracker()
    >>> stat = tracker(tracker.offline(right=3, tries=8), Observation(1.0), step=1)
    >>> [round(value, 6) for value in tracker.shifted(stat, 0.005, step=1).values[:2]]
    [3.936498, 4.614497]
    """

    d_half: float = knob(0.06, "Movement that halves the memory.", unit="nats", gt=0)
    rho_min: float = knob(0.875, "Least that a visit keeps; as much as `rho_max` is the paper's constant.", gt=0, le=1)
    rho_max: float = knob(0.96, "Most that a visit keeps.", gt=0, le=1)
    prior_alpha: float = knob(0.5, "Right answers of a prompt never seen, as pseudo-counts.", gt=0)
    prior_beta: float = knob(0.5, "Wrong answers of a prompt never seen.", gt=0)
    lag_discount: float = knob(1.0, "What a version of lag takes of an outcome's weight; 1 ignores lag.", gt=0, le=1)

    columns: ClassVar[tuple[str, ...]] = ("alpha", "beta", "fresh_right", "fresh_wrong", "forget")
    confidence: ClassVar[str] = "code"

    def __post_init__(self) -> None:
        check(self)
        if self.rho_min > self.rho_max:
            raise ValueError(f"knob rho_min is {self.rho_min}; accepted: up to rho_max, {self.rho_max}")

    def initial(self) -> Stat:
        """A prompt never seen."""
        return Stat((self.prior_alpha, self.prior_beta, 0.0, 0.0, 0.0))

    def offline(self, right: float, tries: int) -> Stat:
        """A prompt tried before the run (Jeffreys-smoothed, as in the authors' code). `rho_min` < 1."""
        size = 1.0 / (1.0 - self.rho_min)
        alpha, beta = size * (right + 0.5) / (tries + 1), size * (tries - right + 0.5) / (tries + 1)
        return Stat((alpha, beta, 0.0, 0.0, 0.0))

    def rho(self, mean_abs_logprob_change: float) -> float:
        """Share of the memory kept.

        >>> [round(SpoTracker().rho(d), 6) for d in (0.0, 0.005, 0.0099, 0.02)]
        [0.96, 0.943874, 0.891929, 0.875]
        """
        return min(max(2.0 ** (-mean_abs_logprob_change / self.d_half), self.rho_min), self.rho_max)

    def observe(
        self,
        values_PK: np.ndarray,
        decayed_P: np.ndarray,
        accuracy_P: np.ndarray,
        lag_P: np.ndarray,
        step_P: np.ndarray,
    ) -> np.ndarray:
        """Add an outcome; it waits for its movement, unless that was here first."""
        after_PK = values_PK.copy()
        late_P = (step_P > decayed_P) & _waiting(values_PK)
        after_PK[late_P] = _settled(after_PK[late_P], self.rho_max)
        weight_P = powers(self.lag_discount, lag_P)
        seen_P2 = np.stack((weight_P * accuracy_P, weight_P * (1.0 - accuracy_P)), axis=1)
        forget_P = after_PK[:, 4]
        known_P = forget_P > 0
        after_PK[known_P, :2] = forget_P[known_P, None] * after_PK[known_P, :2] + seen_P2[known_P]
        after_PK[~known_P, 2:4] += seen_P2[~known_P]
        after_PK[:, 4] = 0.0
        return after_PK

    def moved(self, values_PK: np.ndarray, change_P: np.ndarray) -> np.ndarray:
        """Settle the waiting outcomes, or keep the movement for the outcome that comes."""
        rho_P = np.array([self.rho(change) for change in change_P.tolist()])
        after_PK, waiting_P = values_PK.copy(), _waiting(values_PK)
        after_PK[waiting_P] = _settled(after_PK[waiting_P], rho_P[waiting_P, None])
        forget_P = values_PK[:, 4]
        after_PK[~waiting_P, 4] = np.where(forget_P > 0, rho_P * forget_P, rho_P)[~waiting_P]
        return after_PK

    def pseudo_counts(self, values_PK: np.ndarray, decayed_step_P: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
        """(alpha_P, beta_P): waiting outcomes with rho_max, a waiting movement applied."""
        alpha_P, beta_P, right_P, wrong_P, forget_P = values_PK.T
        rho_P = np.where(right_P + wrong_P > 0, self.rho_max, np.where(forget_P > 0, forget_P, 1.0))
        return rho_P * alpha_P + right_P, rho_P * beta_P + wrong_P


def _waiting(values_PK: np.ndarray) -> np.ndarray:
    return values_PK[:, 2] + values_PK[:, 3] > 0


def _settled(values_PK: np.ndarray, rho: float | np.ndarray) -> np.ndarray:
    after_PK = values_PK.copy()
    after_PK[:, :2] = rho * values_PK[:, :2] + values_PK[:, 2:4]
    after_PK[:, 2:4] = 0.0
    return after_PK
