"""Sets of rollouts are rewarded for being good and different; a rollout gets what its sets get (polychromic objective).

    f(S) = mean reward of S * (different answers in S) / n,   for every set S of n rollouts of the group
    A_i = mean of f over the sets with i - mean of f over all sets

Source: Polychromic Objectives for Reinforcement Learning (2025), read in a third party's notes. There sets are drawn
among rollouts that branch off at states along the way; here they are all sets of a group, counted in closed form, so
that no set is drawn by chance.
Odd cases: a group of n or fewer has one set: 0. Equal answers have d = 1/n. Answers that cannot be read are one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import class_sum, same_in_group
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_size, group_sum


@dataclass(frozen=True)
class Polychromic:
    """R [1, 0, 1, 0], answers a, b, a, b: f({0,2}) = .5, f({1,3}) = 0, all others .5; A = [.083333, -.083333, ...]."""

    n: int = knob(2, "rollouts in a set", unit="rollouts", ge=2)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"answer"})

    def __call__(self, batch: Batch) -> Tensor:
        value_N = self.mean_over_sets(batch)
        small_N = group_size(batch) <= self.n
        return torch.where(small_N, torch.zeros_like(value_N), value_N - group_mean(batch, value_N))

    def mean_over_sets(self, batch: Batch) -> Tensor:
        """Mean of f over the sets of n that hold each rollout, [N].

        E[sum of rewards * different answers] = r_i U(i) + sum_{j != i} P(j in S) r_j U(i, j), where U counts answers
        expected in a set with i, or with i and j, from how likely a set misses an answer.
        """
        class_N, reward_N, size_N = same_in_group(batch, batch.signals["answer"]), batch.reward_N, group_size(batch)
        count_N = class_sum(class_N, torch.ones_like(reward_N))
        miss1_N, miss2_N = (self._missed(size_N - k, count_N, self.n - k) for k in (1, 2))
        met1_N, met2_N = (group_sum(batch, (1 - miss_N) / count_N) for miss_N in (miss1_N, miss2_N))
        alone_N = reward_N * (met1_N + miss1_N)
        others_N = (group_sum(batch, reward_N) - reward_N) * (met2_N + miss2_N)
        unlike_N = group_sum(batch, reward_N * miss2_N) - class_sum(class_N, reward_N * miss2_N)
        joint_N = (self.n - 1) / (size_N - 1).clamp(min=1) * (others_N + unlike_N)
        return (alone_N + joint_N) / self.n**2

    def _missed(self, rest_N: Tensor, count_N: Tensor, n: int) -> Tensor:
        """Chance that n of `rest_N` others hold none of `count_N`: choose(rest - count, n) / choose(rest, n)."""
        left_N = rest_N - count_N
        log_N = torch.lgamma(left_N.clamp(min=n) + 1) - torch.lgamma(left_N.clamp(min=n) - n + 1)
        log_N = log_N - torch.lgamma(rest_N.clamp(min=n) + 1) + torch.lgamma(rest_N.clamp(min=n) - n + 1)
        return torch.where(left_N >= n, log_N.exp(), torch.zeros_like(log_N)) if n else torch.ones_like(log_N)
