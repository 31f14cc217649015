"""The reward minus the price of a cost, taken pessimistically: the primal side of HC-RLHF.

    kappa = c1 t(1 - delta, n - 1) / sqrt n + c2 t(1 - delta, n_s - 1) / sqrt n_s
    c'_i = c_i + kappa (c_i^2 - 2 c_i mean) / (2 std)         the pull of mean + kappa std on each rollout
    r_i = clamp(r_i, +-limit) - lambda c'_i

lambda is the signal "dual" of the controller `dual_variable`; costs are a raw reward of the verdict, 0 or less is safe.

Source: HC-RLHF, released code (UMass-SCALAR-Lab/HC-RLHF): delta .1, c1 = c2 = 1, n_s 1,000 prompts of the safety test,
limit 50. Its KL of .1 inside the reward is the regularizer `kl` (k2 has that gradient). n, mean and std are of the
step's costs over all ranks, where the released code takes a device's batch.
Odd cases: a rollout without a cost pays nothing and is in no statistic. Fewer than two costs, or equal ones: c' = c.
Without the controller lambda is `multiplier`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import named
from services.learning.batch import Batch
from services.learning.reduce import step_moments
from services.learning.student import quantile


@dataclass(frozen=True)
class Constrained:
    """c [-1.2, .3, -.8, -.5, -1, .1, -.6, -.9]: kappa .540804, c' [-1.169300, .522574, -.943266, -.666291, ...]."""

    cost: str = knob("cost", "raw reward with the cost")
    delta: float = knob(0.1, "chance that the bound may fail", gt=0, lt=1)
    c1: float = knob(1.0, "weight of the step's own uncertainty", ge=0)
    c2: float = knob(1.0, "weight of the safety test's uncertainty", ge=0)
    safety: int = knob(1000, "prompts of the safety test", unit="prompts", ge=2)
    limit: float = knob(50.0, "bound on the reward before the cost", unit="reward", gt=0)
    multiplier: float = knob(1.0, "lambda where no controller gives one", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        dual_N = batch.signals.get("dual", torch.full_like(reward_N, self.multiplier))
        return reward_N.clamp(-self.limit, self.limit) - dual_N * self.price(batch)

    def price(self, batch: Batch) -> Tensor:
        """c', [N]; 0 where a verdict has no cost. Collective."""
        raw_N = named(batch, self.cost).to(batch.accuracy_N.dtype)
        known_N = ~raw_N.isnan()
        cost_N = raw_N.nan_to_num(nan=0.0)
        mean, std = step_moments(batch, cost_N, known_N, 1)
        count = int(batch.world.sum(known_N.sum()))
        kappa = margin(count, self.safety, self.delta, self.c1, self.c2)
        bend_N = kappa * (cost_N**2 - 2 * cost_N * mean) / (2 * std.clamp(min=1e-12))
        return torch.where(known_N & (std > 0), cost_N + bend_N, cost_N)


def margin(count: int, safety: int, delta: float, c1: float, c2: float) -> float:
    """kappa for this many costs, in multiples of their std; 0 for fewer than two."""
    if count < 2:
        return 0.0
    terms = ((c1, count), (c2, safety))
    return sum(c * quantile(1 - delta, n - 1) / math.sqrt(n) for c, n in terms)
