"""As many bad answers as good ones: the surplus is left out at random, the mean taken over what stays (RED-Drop).

    good: r_i >= mean of the group;   of the others a random choice stays, no more than there are good ones
    A_i = r_i - mean of those that stay,    0 for those left out

Source: RED-Drop in "Group-relative REINFORCE is secretly an off-policy algorithm", arXiv:2509.24203; Trinity's `rec`
advantage with `drop: balance`.
Odd cases: equal rewards are all good, nothing is left out and A = 0. The choice depends on the rollouts' keys and the
version only. A group of one gets 0 (released code fails there).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.lottery import row_tickets
from services.learning.reduce import group_mean, group_sum


@dataclass(frozen=True)
class RedDrop:
    """Rewards [1, 0, 0, 0], items 0 and 1 stay: A = [.5, -.5, 0, 0]."""

    def __call__(self, batch: Batch) -> Tensor:
        reward_N = batch.reward_N
        good_N = reward_N >= group_mean(batch, reward_N) - 1e-9
        count_N = group_sum(batch, good_N.to(reward_N.dtype))
        keep_N = good_N | (_place(batch.group_N, ~good_N, row_tickets(batch)) < count_N)
        kept_N = keep_N.to(reward_N.dtype)
        mean_N = group_sum(batch, reward_N * kept_N) / group_sum(batch, kept_N).clamp(min=1)
        return (reward_N - mean_N) * kept_N


def _place(group_N: Tensor, chosen_N: Tensor, ticket_N: Tensor) -> Tensor:
    """Place of each chosen row among the chosen of its group, by ticket, from 0; of no meaning for the others."""
    key_N = group_N * 2 + chosen_N
    order_N = ticket_N.argsort()
    order_N = order_N[key_N[order_N].argsort(stable=True)]
    sorted_N = key_N[order_N]
    start_N = torch.searchsorted(sorted_N, sorted_N)
    place_N = torch.zeros_like(group_N)
    place_N[order_N] = torch.arange(len(group_N), device=group_N.device) - start_N
    return place_N
