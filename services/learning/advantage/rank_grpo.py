"""The unit is an item of a ranked list: each rank is compared with that rank of the group's other lists (Rank-GRPO).

    reward_k = gain_k + gain_{k+1} + ...  (`causal`), or gain_k;   with `hits`: gain_k = hit_k / log2(k + 1), k from 1
    A_k = (reward_k - mean of the group) / (std + eps),  on every token of item k

Source: Rank-GRPO's released code (unbiased std, eps 1e-4). Gains are the verdict's raw rewards `rank_1`, `rank_2`, ...,
as the check `ranking` gives them (shares of the NDCG); the item of each token, from 0, is the side array `item`.
Odd cases: a missing gain is 0, so an unreadable list has none. Tokens without an item number count as the first item's,
whose causal reward is the whole list's; items past the last rank get 0. No gains at all: the accuracy is the one gain.
A rank with equal rewards, or in a group of one, gets 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_std


@dataclass(frozen=True)
class RankGrpo:
    """Hits [[1, 0, 1], [0, 1, 0]]: rewards [[1.5, .5, .5], [.63093, .63093, 0]], A_0 = [.706992, -.706344, .706907]."""

    name: str = knob("rank_", "how the names of the raw rewards begin, before the rank")
    hits: bool = knob(False, "whether they are plain hits, to be discounted by rank")
    item: str = knob("item", "side array with each token's item, from 0")
    causal: bool = knob(True, "an item answers for the gains after it too")
    eps: float = knob(1e-4, "added to the std", unit="reward", ge=0)

    __post_init__ = check

    z_score: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> Tensor:
        advantage_KN = torch.stack([self._normal(batch, reward_N) for reward_N in self.rewards(batch)])
        if self.item not in batch.side:
            return advantage_KN[0]
        item_NT = batch.side[self.item].nan_to_num(nan=0.0).clamp_(0, len(advantage_KN)).long()
        beyond_KN = torch.cat([advantage_KN, torch.zeros_like(advantage_KN[:1])])
        return beyond_KN.T.contiguous().gather(1, item_NT).mul_(batch.valid_NT)

    def rewards(self, batch: Batch) -> Tensor:
        """Reward of each rank, [K, N]."""
        ranks = 0
        while f"{self.name}{ranks + 1}" in batch.rewards:
            ranks += 1
        named = [batch.rewards[f"{self.name}{k + 1}"] for k in range(ranks)] or [batch.accuracy_N]
        gain_KN = torch.stack(named).nan_to_num(nan=0.0)
        if self.hits:
            place_K = torch.arange(len(gain_KN), device=gain_KN.device, dtype=gain_KN.dtype)
            gain_KN = gain_KN / (place_K + 2).log2()[:, None]
        return gain_KN.flip(0).cumsum(0).flip(0) if self.causal else gain_KN

    def _normal(self, batch: Batch, reward_N: Tensor) -> Tensor:
        above_N = reward_N - group_mean(batch, reward_N)
        std_N = group_std(batch, reward_N, 1)
        return torch.where(std_N > 1e-12, above_N / (std_N + self.eps), torch.zeros_like(above_N))
