"""Direct Nash optimisation, practical form: preference pairs with a margin, against the policy that sampled them.

    positive: score >= floor.   pair (i, j): score_i - score_j >= own_margin where i is the policy's own rollout,
                                             >= margin where i was written by a teacher
    loss = -sum_pairs log sigmoid(eta (l_i - l_j)) / (pairs of the whole step),    l_i = sum_t (logp_t - prox_t)

Source: "Direct Nash Optimization", arXiv:2404.03715, Algorithm 2 (DNO-Prct). Its annotator scores 0 to 6; the score
here is the raw reward named `score`, or the combined reward. The reference is the iterate that sampled, not the first
one, so the recorded log-probs are the reference and no second model is kept.
Odd cases: a rollout whose every token was injected is a teacher's: it is pulled up like the others, and as nobody
recorded its log-probs, its reference is the policy at the start of the step. Degenerate repetition is left to the
checker, which should score it low. The paper's auxiliary weight alpha = 0.005 is not explained there and not built.
Without a pair the loss is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.demonstration import demonstrations
from services.learning.likelihood import Forward
from services.learning.objective import told
from services.learning.pairs import Pairs, log_ratios, paired, pairs, preference


@dataclass(frozen=True)
class Dno:
    """Log-ratios 0.4 and -0.2 at eta 0.1: 0.663597. Scores, teacher's 5 and own 6, 4, 3, 5, 2: 10 pairs."""

    eta: float = knob(0.1, "strength of the reference (the paper's beta)", gt=0)
    score: str = knob("", "which raw named reward is the score; empty: the combined reward")
    floor: float = knob(5.0, "least score of a positive (of 0 to 6)", unit="score")
    margin: float = knob(2.0, "how far a teacher's positive must be above the negative", unit="score", gt=0)
    own_margin: float = knob(1.0, "how far the policy's own positive must be above the negative", unit="score", gt=0)

    __post_init__ = check

    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "a preference objective compares pairs and never reads the advantage",
        "modifiers": "a preference objective never reads the advantage that a modifier changes",
        "weight": "a preference objective never reads a weight",
    }

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Pairs of the whole step."""
        return paired(batch, "dno_pairs", self.pairs(batch))

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        taught_NT = demonstrations(batch)
        prox_NT = torch.where(taught_NT, forward.logp_NT.detach(), batch.prox_NT)
        gap_N = log_ratios(forward, prox_NT, batch.mask_NT | taught_NT)
        better, worse = self.pairs(batch)
        return preference(self.eta * (gap_N[better] - gap_N[worse])).sum() / told(batch, "dno_pairs", 1.0)

    def pairs(self, batch: Batch) -> Pairs:
        """Rows of the positives and of their negatives."""
        score_N = batch.rewards.get(self.score, batch.reward_N)
        score_N = torch.where(score_N.isnan(), batch.reward_N, score_N)
        taught_N = demonstrations(batch).any(1)
        margin_NN = torch.where(taught_N, self.margin, self.own_margin)[:, None].to(score_N.dtype)
        better_NN = (score_N[:, None] - score_N[None, :] >= margin_NN) & (score_N >= self.floor)[:, None]
        return pairs(batch, better_NN)
