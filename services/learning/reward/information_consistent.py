"""Paraphrases of one question should be answered with as much information (information-consistent GRPO).

    H_i = entropy of the rollout's own token frequencies,   Hn_i = (H_i - min) / (max - min) in the group
    F_i = 1 - mean_j |H_i - H_j| / (max - min),    r_i = keep r_i + (1 - keep) (alpha Hn_i + (1 - alpha) F_i)

Source: information-consistent GRPO, arXiv:2512.12858, read in a review, where F is one number per group and gives no
gradient under a group's normalisation; `per: group` is that number, as printed (1 - sum over pairs / n / gap). alpha,
and the form per response, are a guess. A group is the rollouts of one class of prompts.
Odd cases: equal entropies: Hn = 0, F = 1. An empty rollout has H = 0. Entropy rises with word salad too, so part of the
task's own reward is kept. A rollout without a reward is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_extreme, pad, unpad
from services.learning.batch import Batch


@dataclass(frozen=True)
class InformationConsistent:
    """H = [2, 2.4, 1.6, 2]: Hn [.5, 1, 0, .5], F [.6667, .3333, .3333, .6667], at .5: [.5833, .6667, .1667, .5833]."""

    alpha: float = knob(0.5, "weight of information against consistency", ge=0, le=1)
    keep: float = knob(0.5, "share of the reward so far that stays (the paper has none)", ge=0, le=1)
    per: str = knob("response", "what consistency is measured of", choices=("response", "group"))

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        entropy_N = token_entropy(batch).to(reward_N.dtype)
        return self.keep * reward_N + (1 - self.keep) * self.worth(batch, entropy_N, ~reward_N.isnan())

    def worth(self, batch: Batch, entropy_N: Tensor, known_N: Tensor) -> Tensor:
        """alpha Hn + (1 - alpha) F, [N], over the known rollouts of each group."""
        low_N, high_N = (masked_extreme(batch, entropy_N, known_N, how) for how in ("amin", "amax"))
        gap_N = torch.where(high_N > low_N, high_N - low_N, torch.ones_like(low_N))
        share_N = torch.where(known_N, entropy_N - low_N, torch.zeros_like(low_N)) / gap_N
        value_GM, known_GM = pad(batch, share_N), pad(batch, known_N.to(share_N.dtype))
        apart_GMM = (value_GM[:, :, None] - value_GM[:, None, :]).abs() * known_GM[:, :, None] * known_GM[:, None, :]
        count_G1 = known_GM.sum(1, keepdim=True)
        if self.per == "group":
            away_GM = (apart_GMM.sum((1, 2)) / 2)[:, None] / count_G1.clamp(min=1) + torch.zeros_like(value_GM)
        else:
            away_GM = apart_GMM.sum(2) / (count_G1 - 1).clamp(min=1)
        return self.alpha * share_N + (1 - self.alpha) * (1 - unpad(batch, away_GM))


def token_entropy(batch: Batch) -> Tensor:
    """Entropy of each rollout's own token frequencies, nats, [N]."""
    row_NT = torch.arange(len(batch), device=batch.token_NT.device)[:, None].expand_as(batch.token_NT)
    pair_K2 = torch.stack([row_NT[batch.valid_NT], batch.token_NT[batch.valid_NT]], 1)
    kinds_P2, count_P = pair_K2.unique(dim=0, return_counts=True)
    share_P = count_P / batch.length_N[kinds_P2[:, 0]]
    start_N = torch.zeros(len(batch), dtype=share_P.dtype, device=share_P.device)
    return start_N.index_add(0, kinds_P2[:, 0], -share_P * share_P.log())
