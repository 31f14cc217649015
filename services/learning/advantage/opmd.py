"""The reward against the group's log-average-exp: the exact baseline of KL-regularised rewards (OPMD).

    A_i = r_i - tau (logsumexp_j(r_j / tau) - log n)

Source: Kimi k1.5, arXiv:2501.12599, and Trinity's `opmd` advantage (tau 1); as tau grows it is the mean. Trinity's
stand-alone loss also divides by 1 + tau (`divide`).
Odd cases: the advantages of a group do not sum to 0. A group of one gets 0 (released code: silently the reward
itself).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_size, group_sum


@dataclass(frozen=True)
class Opmd:
    """Rewards [1, 0, 0, 0], tau 1: baseline .357374, A = [.642626, -.357374, -.357374, -.357374]."""

    tau: float = knob(1.0, "strength of the regularisation that the baseline belongs to", unit="reward", gt=0)
    divide: bool = knob(False, "divide by 1 + tau")

    __post_init__ = check

    def __call__(self, batch: Batch) -> Tensor:
        most_G = batch.reward_N.new_zeros(batch.groups)
        most_N = most_G.scatter_reduce(0, batch.group_N, batch.reward_N, "amax", include_self=False)[batch.group_N]
        mean_N = group_sum(batch, ((batch.reward_N - most_N) / self.tau).exp()) / group_size(batch)
        advantage_N = batch.reward_N - most_N - self.tau * mean_N.log()
        return advantage_N / (1 + self.tau) if self.divide else advantage_N
