"""Direct preference optimisation on the pairs that a group's rewards make.

    l_i = sum_t (logp_t - ref_t),    z = beta (l_i - l_j)   for every pair of a group with r_i - r_j > margin
    loss = -sum_pairs [(1 - s) log sigmoid(z) + s log sigmoid(-z)] / (pairs of the whole step)

Source: DPO, arXiv:2305.18290 (s = 0); the conservative form with s > 0 is Mitchell's note on noisy preferences, as in
MCTS-DPO (YuxiXie/MCTS-DPO).
Odd cases: a group of equal rewards makes no pair; without any pair the loss is 0. The advantage is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.objective import told
from services.learning.pairs import Pairs, above, log_ratios, paired, pairs, preference


@dataclass(frozen=True)
class Dpo:
    """Log-ratios 1.2 and -0.4 at beta 0.1: 0.616344; with s = 0.25: 0.656344."""

    beta: float = knob(0.1, "strength of the reference", gt=0)
    margin: float = knob(0.0, "by how much the better reward must be above the worse", unit="reward", ge=0)
    smoothing: float = knob(0.0, "chance that a pair is the wrong way round", unit="probability", ge=0, lt=0.5)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "a preference objective compares pairs and never reads the advantage",
        "modifiers": "a preference objective never reads the advantage that a modifier changes",
        "weight": "a preference objective never reads a weight",
    }

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Pairs of the whole step."""
        return paired(batch, "dpo_pairs", self._pairs(batch))

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        gap_N = log_ratios(forward, batch.signals["ref_logp"], batch.mask_NT)
        better, worse = self._pairs(batch)
        loss_P = preference(self.beta * (gap_N[better] - gap_N[worse]), self.smoothing)
        return loss_P.sum() / told(batch, "dpo_pairs", 1.0)

    def _pairs(self, batch: Batch) -> Pairs:
        return pairs(batch, above(batch.reward_N, self.margin))
