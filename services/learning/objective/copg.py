"""Contrastive policy gradient: valid for any sampling distribution, without importance weights (CoPG).

    l_i = sum_t (logp_t - ref_t),    R_i = r_i - beta l_i  (detached)
    d loss / d l_i = -sum_j (R_i - R_j) / (k - 1)          over the k rollouts of the prompt, then mean over prompts

which is the gradient of -sum_pairs [(r_i - r_j)(l_i - l_j) - beta / 2 (l_i - l_j)^2] / (k - 1), and of the squared form
sum_pairs (R_i - R_j)^2 / (2 beta (k - 1)); `form: squared` drops the 1 / (2 beta), as Command A's report.

Source: "Contrastive Policy Gradient", arXiv:2406.19185, eq. 7 to 22; the k-sample form, Command A's technical report.
Odd cases: a group of one adds nothing. The unique optimum is pi_ref exp(r / beta) / Z. The advantage is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.pairs import log_ratios
from services.learning.reduce import group_size, group_sum


@dataclass(frozen=True)
class Copg:
    """beta .1, r (1, .2), l (.5, -.3): -loss .608, coef +-.72; squared .5184; r (1, .2, .5), l (.5, -.3, .1): .3988."""

    beta: float = knob(0.1, "strength of the reference (the paper's toy: 0.5)", gt=0)
    form: str = knob("contrast", "which of the two equal losses", choices=("contrast", "squared"))

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "the contrast of a pair is the baseline: it never reads the advantage",
        "modifiers": "this objective never reads the advantage that a modifier changes",
        "weight": "this objective needs no importance weight and never reads it",
    }

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        gap_N = log_ratios(forward, batch.signals["ref_logp"], batch.mask_NT)
        return self.by_rollout(batch, gap_N).sum() / max(batch.denominators.groups, 1.0)

    def by_rollout(self, batch: Batch, gap_N: Tensor) -> Tensor:
        """Each rollout's share of its prompt's loss, [N]. Sums over pairs are written as sums over rollouts."""
        size_N, reward_N = group_size(batch), batch.reward_N
        others_N = (size_N - 1).clamp(min=1)
        if self.form == "squared":
            value_N = reward_N - self.beta * gap_N
            return (value_N * (value_N - group_sum(batch, value_N) / size_N)) * size_N / others_N
        reward_gap_N = size_N * reward_N - group_sum(batch, reward_N)
        square_N = size_N * gap_N**2 - gap_N * group_sum(batch, gap_N)
        return (self.beta / 2 * square_N - reward_gap_N * gap_N) / others_N
