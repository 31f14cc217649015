"""Tokens that good and bad answers of a group share at the same place are not punished (GTPO's conflict tokens).

    conflict: a (place, token) in some answer with A > 0 and in some with A < 0 of its group; only the leading run,
              counted from the front, and the trailing run, counted from the back
    delta = 2 for a conflict token where A > 0, 0 where A < 0, else 1; of both runs multiplied (4 where both)
    W_t = delta_t / max(1, conflict tokens of the rollout),    M = 1

Source: GTPO, arXiv:2508.03772 (trajectory-based policy optimisation), and its released code, whose count of conflict
tokens mixes places from the front with places from the back; this part counts each conflict token once.
Odd cases: A is the reward minus its group's mean, before the entropy shaping. Equal answers are all conflict. A group
of one, or of equal rewards, has none. The released loss sums over answers where `sequence_mean_token_mean` averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean
from services.learning.weight import Weighed, everywhere


@dataclass(frozen=True)
class GtpoConflict:
    """
    [5,6,7,8,9] r 1, [5,6,1,2,9] r 0, [5,3,4,9] r 0, [5,6,7,9] r 1: delta [2,2,1,1,2], [0,0,1,1,0], [0,1,1,0], [2,2,1,2]
    """

    boost: float = knob(2.0, "delta of a conflict token in a good answer", ge=0)
    spare: float = knob(0.0, "delta of a conflict token in a bad answer", ge=0)
    divide: bool = knob(True, "divide a rollout by its count of conflict tokens")

    __post_init__ = check

    shapes: ClassVar[str] = "conflict tokens weigh 2 or 0, and a rollout is divided by how many it has"

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The weight of each token: it takes whole groups to know."""
        above_N = batch.reward_N - group_mean(batch, batch.reward_N)
        lead_NT, trail_NT = conflicts(batch, above_N)
        value_N1 = torch.where(above_N > 0, self.boost, self.spare).to(above_N.dtype)[:, None]
        ones_NT = torch.ones_like(batch.behaviour_NT)
        delta_NT = torch.where(lead_NT, value_N1, ones_NT) * torch.where(trail_NT, value_N1, ones_NT)
        count_N1 = (lead_NT | trail_NT).sum(1, keepdim=True).clamp(min=1)
        return {"gtpo_weight": delta_NT / count_N1 if self.divide else delta_NT}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        weight_NT = batch.signals["gtpo_weight"].to(logp_NT.dtype)
        return Weighed(weight_NT, everywhere(weight_NT))


def conflicts(batch: Batch, above_N: Tensor) -> tuple[Tensor, Tensor]:
    """Conflict tokens of the leading run and of the trailing run, bool [N, T]; `above_N`: rewards over their mean."""
    place_T = torch.arange(batch.token_NT.shape[1], device=above_N.device)
    mirror_NT = (batch.length_N[:, None] - 1 - place_T).clamp(min=0)
    lead_NT = _run(batch, batch.token_NT, above_N)
    trail_NT = _run(batch, batch.token_NT.gather(1, mirror_NT), above_N).gather(1, mirror_NT) & batch.valid_NT
    return lead_NT, trail_NT


def _run(batch: Batch, token_NT: Tensor, above_N: Tensor) -> Tensor:
    """Where, from the start without a gap, (group, place, token) occurs on both sides of the mean."""
    valid_NT = batch.valid_NT
    if not valid_NT.any():
        return torch.zeros_like(valid_NT)
    width, vocabulary = token_NT.shape[1], int(token_NT.max()) + 1
    place_NT = batch.group_N[:, None] * width + torch.arange(width, device=token_NT.device)
    key_K, which_K = (place_NT * vocabulary + token_NT)[valid_NT].unique(return_inverse=True)
    sign_K = above_N.sign()[:, None].expand_as(token_NT)[valid_NT]
    count_K2 = torch.zeros((len(key_K), 2), dtype=torch.long, device=key_K.device)
    count_K2.index_put_((which_K,), torch.stack([sign_K > 0, sign_K < 0], 1).long(), accumulate=True)
    both_NT = torch.zeros_like(valid_NT)
    both_NT[valid_NT] = (count_K2 > 0).all(1)[which_K] & (sign_K != 0)
    return both_NT.long().cumprod(1).bool()
