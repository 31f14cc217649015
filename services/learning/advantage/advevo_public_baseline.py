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


@dataclass(frozen=True)
class AdvevoPublicBaseline:
    """Returns of attackers (0, 1), of defenders (1, .5, 0): [-.5, .5] and [.5, 0, -.5], before whitening."""

    pool: str = knob("step", "whose returns are averaged", choices=("step", "prompt"))
    whiten: bool = knob(True, "divide by the std of the step's tokens, as REINFORCE++")

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"role", "turn_reward"})

    def __call__(self, batch: Batch) -> Tensor:
        role_NT, reward_NT = batch.signals["role"], batch.signals["turn_reward"]
        found_NT = torch.zeros_like(reward_NT)
        for role in self._roles(batch, role_NT):
            own_NT = batch.valid_NT & (role_NT == role)
            speaks_N = own_NT.any(1)
            return_N = (reward_NT * own_NT).sum(1)
            if self.pool == "step":
                mean_N = step_moments(batch, return_N, speaks_N, 1)[0].expand_as(return_N)
            else:
                mean_N = masked_mean(batch, return_N, speaks_N)
            found_NT = torch.where(own_NT, (return_N - mean_N)[:, None], found_NT)
        found_NT = found_NT * batch.mask_NT
        return whiten(batch, found_NT, batch.mask_NT, 1e-8) * batch.mask_NT if self.whiten else found_NT

    def _roles(self, batch: Batch, role_NT: Tensor) -> list[int]:
        mine = role_NT[batch.valid_NT].unique()
        return torch.cat(batch.world.gather_rows(mine[:, None])).unique().tolist()
