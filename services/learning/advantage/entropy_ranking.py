"""Truncated answers of an all-wrong group are ranked by their entropy (R^3's structural entropy ranking reward).

    peak_i   = mean entropy of the top p of the sampled tokens, k = max(1, floor(p L));     global_i = mean entropy
    i dominates j  iff  peak_i > peak_j and global_i < global_j;      S_i = how many it dominates
    r_i = R_max (1 - rank_i / (N - 1)),  rank 0 for the largest S;    A_i = (r_i - mean r) / (std r + eps)

among the N truncated answers of a group in which none is right, whose verdicts say nothing of each other. Everybody
else keeps the advantage that came in; in such a group answers that ended on their own have r = 0.

Source: R^3, arXiv:2601.19620, section 3.2. p and R_max are not in the text read: a guess. The reward is normalised
here, because entropies are known only after rewards are given.
Odd cases: ties in S are broken by the order in the group. One truncated answer has nobody to be ranked with (the paper
divides by zero): r = 0. Entropies are of the policy at the start of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_std, group_sum, per_token, row_mean


@dataclass(frozen=True)
class EntropyRanking:
    """Peaks [1.75, .5, .55, 1.5], means [.43, .5, .19, 1.1]: S = [2, 0, 1, 0], r = [1, 1/3, 2/3, 0]."""

    top: float = knob(0.2, "share of the tokens that make the peak, p; a guess", gt=0, le=1)
    most: float = knob(1.0, "R_max; a guess", unit="reward", gt=0)
    eps: float = knob(1e-6, "added to the std (population)", unit="reward", ge=0)

    __post_init__ = check

    modifies: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        hopeless_N = group_sum(batch, (batch.accuracy_N > 0).to(batch.reward_N.dtype)) == 0
        ranked_N = hopeless_N & batch.truncated_N
        peak_N, mean_N = self.shape(batch.signals["entropy"], batch.valid_NT, batch.length_N)
        reward_N = self.reward(batch, ranked_N, peak_N, mean_N)
        told_N = group_sum(batch, ranked_N.to(reward_N.dtype)) > 1
        found_N = (reward_N - group_mean(batch, reward_N)) / (group_std(batch, reward_N, 0) + self.eps)
        found_N, told_N = found_N.to(advantage.dtype), told_N & hopeless_N
        return torch.where(per_token(told_N, advantage), per_token(found_N, advantage), advantage)

    def shape(self, entropy_NT: Tensor, valid_NT: Tensor, length_N: Tensor) -> tuple[Tensor, Tensor]:
        """(peak, mean) of each row's entropies, [N]."""
        sorted_NT = entropy_NT.masked_fill(~valid_NT, float("-inf")).sort(1, descending=True).values
        count_N = (self.top * length_N + 1e-9).floor().clamp(min=1)
        top_NT = (torch.arange(entropy_NT.shape[1], device=length_N.device) < count_N[:, None]) & sorted_NT.isfinite()
        return row_mean(sorted_NT, top_NT), row_mean(entropy_NT, valid_NT)

    def reward(self, batch: Batch, ranked_N: Tensor, peak_N: Tensor, mean_N: Tensor) -> Tensor:
        """r_i, [N]; 0 where a rollout is not ranked."""
        rows = ranked_N.nonzero().flatten()
        reward_N = torch.zeros_like(batch.reward_N)
        if not len(rows):
            return reward_N
        group_K, place_K = batch.group_N[rows], _places(batch.group_N[rows])
        table_GM = torch.full((batch.groups, int(place_K.max()) + 1, 2), float("nan"), dtype=peak_N.dtype)
        table_GM = table_GM.to(peak_N.device)
        table_GM[group_K, place_K] = torch.stack((peak_N, mean_N), 1)[rows]
        peak_GM, mean_GM = table_GM.unbind(2)
        beats_GMM = (peak_GM[:, :, None] > peak_GM[:, None]) & (mean_GM[:, :, None] < mean_GM[:, None])
        score_GM = beats_GMM.sum(2).masked_fill(peak_GM.isnan(), -1)
        rank_GM = score_GM.argsort(dim=1, descending=True, stable=True).argsort(1)
        size_K = (~peak_GM.isnan()).sum(1)[group_K]
        share_K = 1 - rank_GM[group_K, place_K] / (size_K - 1).clamp(min=1)
        reward_N[rows] = torch.where(size_K > 1, self.most * share_K, torch.zeros_like(share_K)).to(reward_N.dtype)
        return reward_N


def _places(group_K: Tensor) -> Tensor:
    """Place of each entry among those of its group, in order.

    >>> _places(torch.tensor([0, 2, 0, 0, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    order_K = group_K.argsort(stable=True)
    sorted_K = group_K[order_K]
    begin_K = torch.searchsorted(sorted_K, sorted_K)
    place_K = torch.empty_like(group_K)
    place_K[order_K] = torch.arange(len(group_K), device=group_K.device) - begin_K
    return place_K
