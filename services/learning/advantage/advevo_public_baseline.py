"""Agents of one functional group share one baseline: the mean return of all of them (AdvEvo-MARL).

    G_i,g = sum of the step rewards of group g's calls in rollout i
    A_i,g = G_i,g - mean of G_j,g over the step (`pool: step`) or over the rollouts of the prompt (`prompt`)
    then REINFORCE++'s whitening over the step's tokens (`whiten`)

Source: AdvEvo-MARL, arXiv:2510.01586: abstract and reviews; the pool of the baseline is a guess.
Odd cases: with `pool: prompt`, a group that speaks in one rollout of a prompt gets 0 there. A rollout without roles is
of one group, and its return its reward. Tokens that are not trained get 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_mean, whiten
from services.learning.batch import Batch
from services.learning.reduce import step_moments
from services.learning.signal._calls import Calls


@dataclass(frozen=True)
class AdvevoPublicBaseline:
    """Returns of attackers (0, 1), of defenders (1, .5, 0): [-.5, .5] and [.5, 0, -.5], before whitening."""

    pool: str = knob("step", "whose returns are averaged", choices=("step", "prompt"))
    whiten: bool = knob(True, "divide by the std of the step's tokens, as REINFORCE++")

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"role", "turn_reward"})

    def __call__(self, batch: Batch) -> Tensor:
        calls = Calls.of(batch)
        role_K, reward_K = calls.last(batch.signals["role"]), calls.last(batch.signals["turn_reward"])
        found_K = torch.zeros_like(reward_K)
        for role in torch.cat(batch.world.gather_rows(role_K.unique()[:, None])).unique().tolist():
            own_K = role_K == role
            sums_N2 = reward_K.new_zeros((len(batch), 2))
            sums_N2.index_add_(0, calls.row_K, torch.stack([reward_K * own_K, own_K.to(reward_K.dtype)], 1))
            return_N, speaks_N = sums_N2[:, 0], sums_N2[:, 1] > 0
            if self.pool == "step":
                mean_N = step_moments(batch, return_N, speaks_N, 1)[0].expand_as(return_N)
            else:
                mean_N = masked_mean(batch, return_N, speaks_N)
            found_K = torch.where(own_K, (return_N - mean_N)[calls.row_K], found_K)
        if self.whiten:
            found_K = whiten(batch, found_K, calls.count(batch.mask_NT), 1e-8)
        return calls.along(found_K) * batch.mask_NT
