"""MMR1's variance-promoting sampling: outcome variance and the diversity of trajectories.

    VPS_p = alpha * p * (1 - p) + beta * TDS_p

Source: authors' code and paper. TDS is what a verdict's named reward "diversity" (or `Observe`) said of the newest
group, in [0, 1]: distinct 3-grams, inverse self-BLEU or the like. The paper draws a share with replacement in
proportion to VPS and the rest uniformly: `uniform_share` 0.5, there an exact half, here a chance of one half per place.

Odd cases. Diversity that nobody measured counts as 0. All 0 is uniform. The released code subtracts the smallest
weight of the data set first, so that the worst prompt is never drawn by weight; that is `min_max`, which looks at all
prompts at every choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _weighted
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class Mmr1Vps(_weighted.ByWeight):
    """Prompts of uncertain outcome and different answers.

    Worked number: pass rates 0, 0.25, 0.5, 1 and diversities 0.4, 0.9, 0.6, 0.2.

    >>> Mmr1Vps().mixed(np.array([0, 0.25, 0.5, 1]), np.array([0.4, 0.9, 0.6, 0.2])).round(6).tolist()
    [0.08, 0.33, 0.32, 0.04]
    """

    alpha: float = knob(0.8, "Weight of the outcome variance.", ge=0)
    beta: float = knob(0.2, "Weight of the diversity.", ge=0)
    min_max: bool = knob(False, "Scale weights to [0, 1] over all prompts first, as the released code does.")
    uniform_share: float = knob(0.5, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(True, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")

    confidence: ClassVar[str] = "code"
    __post_init__ = check

    @property
    def ceiling(self) -> float | None:
        """No weight is above it."""
        return None if self.min_max else self.alpha / 4 + self.beta

    def mixed(self, p_P: np.ndarray, diversity_P: np.ndarray) -> np.ndarray:
        """VPS_P."""
        return self.alpha * p_P * (1 - p_P) + self.beta * diversity_P

    def weight(self, states: Beliefs) -> np.ndarray:
        """w_P."""
        # A posterior that an older version wrote may hold what is refused now: no weight may be negative.
        diversity_P = np.clip(np.nan_to_num(states.history.diversity_P), 0.0, 1.0)
        vps_P = self.mixed(states.mean_P, diversity_P)
        if not self.min_max:
            return vps_P
        low = vps_P.min(initial=np.inf)
        return (vps_P - low) / (vps_P.max(initial=-np.inf) - low + 1e-8)
