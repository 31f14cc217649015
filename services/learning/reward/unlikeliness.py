"""Likely right answers are worth less, so that unlikely ones are not forgotten (unlikeliness reward).

    rank_i: place in the group by ascending mean behaviour log-prob, from 0;   r_i *= 1 - beta rank_i / G

Source: "Rewarding the Unlikely", arXiv:2506.02355, and its released code (several passes over a batch matter there).
Odd cases: an all-right group now differs and has an advantage, as intended; so filters look at accuracy. A reward of 0
or below is left as it is. Ties in order of arrival. Rollouts without a reward are not counted in the group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import rank
from services.learning.batch import Batch
from services.learning.reduce import group_sum, row_mean


@dataclass(frozen=True)
class Unlikeliness:
    """Log-probs [-.2, -.5, -.3, -.9], r [1, 1, 0, 1]: ranks [3, 1, 2, 0], r [.8125, .9375, 0, 1]."""

    beta: float = knob(0.25, "largest discount", unit="share", ge=0, le=1)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        known_N = ~reward_N.isnan()
        score_N = row_mean(batch.behaviour_NT, batch.valid_NT)
        last_N = torch.where(known_N, score_N, torch.full_like(score_N, float("inf")))
        size_N = group_sum(batch, known_N.to(score_N.dtype)).clamp(min=1)
        return torch.where(reward_N > 0, reward_N * (1 - self.beta * rank(batch, last_N) / size_N), reward_N)
