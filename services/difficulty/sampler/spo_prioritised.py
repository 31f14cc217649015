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

from pipeline.knobs import check, knob
from services.difficulty.sampler import _weighted
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class SpoPrioritised(_weighted.ByWeight):
    """Prompts of uncertain outcome more often.

    Worked number: values 0.2, 0.5, 0.9, 0.5 weigh 0.45, 0.55, 0.35, 0.55.

    >>> v = np.array([0.2, 0.5, 0.9, 0.5])
    >>> SpoPrioritised().score(Beliefs(8 * v, 8 * (1 - v), v, v > 1)).round(6).tolist()
    [0.236842, 0.289474, 0.184211, 0.289474]
    """

    floor: float = knob(0.05, "Weight that every prompt has.", ge=0)
    gamma: float = knob(0.0, "How strongly evidence lowers a weight; the authors' code is 0.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")

    confidence: ClassVar[str] = "code"
    __post_init__ = check

    @property
    def ceiling(self) -> float | None:
        """No weight is above it; with gamma that depends on how little is known of the least known prompt."""
        return 0.5 + self.floor if self.gamma == 0 else None

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        v_P = states.mean_P
        return np.sqrt(v_P * (1 - v_P)) / states.effective_n_P**self.gamma + self.floor
