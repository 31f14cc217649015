"""SPO's prioritised sampling (arXiv:2509.13232; authors' code, and the paper's form with gamma > 0).

    w_p = sqrt(v_p * (1 - v_p)) / N_p ** gamma + floor,   v = alpha / N,  N = alpha + beta

Drawn without replacement with probability in proportion to w: the n smallest of Exponential(1) / w, which is the same
distribution as drawing one after the other and renormalising.

Odd cases: all weights 0 (floor 0, every prompt sure) is uniform. With `floor` 0 a sure prompt is taken only after all
others. In a stream prompts in flight come last (`avoid_busy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from services.difficulty.sampler import _pick
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class SpoPrioritised:
    """Prompts of uncertain outcome more often.

    `floor`: weight that every prompt has, >= 0. `gamma`: how strongly evidence lowers a weight, in [0, 1]; the
    authors' code is 0. `with_replacement`: may a prompt be chosen twice in one call. `uniform_share`: chance that a
    place goes to a prompt at random, in [0, 1]. `avoid_busy`: choose prompts without rollouts in flight first.

    Worked number: values 0.2, 0.5, 0.9, 0.5 weigh 0.45, 0.55, 0.35, 0.55.

    >>> v = np.array([0.2, 0.5, 0.9, 0.5])
    >>> SpoPrioritised().score(Beliefs(8 * v, 8 * (1 - v), v, v > 1)).round(6).tolist()
    [0.236842, 0.289474, 0.184211, 0.289474]
    """

    floor: float = 0.05
    gamma: float = 0.0
    with_replacement: bool = False
    uniform_share: float = 0.0
    avoid_busy: bool = True

    confidence: ClassVar[str] = "code"

    def __post_init__(self) -> None:
        if not 0 <= self.floor < float("inf"):
            raise ValueError(f"floor is {self.floor}; accepted: a number of at least 0")
        _pick.share("gamma", self.gamma)
        _pick.share("uniform_share", self.uniform_share)

    def __call__(self, states: Beliefs, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` indices into `states`; without replacement `UserError` when there are fewer prompts."""
        probability_P = self.score(states)
        if self.with_replacement:
            _pick.enough(states, min(n, 1))
            mixed_P = (1 - self.uniform_share) * probability_P + self.uniform_share / len(states)
            return rng.choice(len(states), size=n, p=mixed_P / mixed_P.sum())
        _pick.enough(states, n)
        with np.errstate(divide="ignore"):
            key_P = rng.exponential(size=len(states)) / probability_P
        return _pick.pick(key_P, states, n, self.uniform_share, self.avoid_busy, rng)

    def score(self, states: Beliefs) -> np.ndarray:
        """Probability of each prompt to be the next."""
        v_P = states.mean_P
        weight_P = np.sqrt(v_P * (1 - v_P)) / states.effective_n_P**self.gamma + self.floor
        total = weight_P.sum()
        return weight_P / total if total > 0 else np.full(len(v_P), 1.0 / max(len(v_P), 1))
