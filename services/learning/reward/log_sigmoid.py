"""Each reward goes through log sigmoid before the sum: gains saturate, and the sum acts like a logical and.

    u_k = log sigmoid(r_k - ref_k),   r = sum_k u_k
    ref_k: the prompt's own, the raw reward `<name>_ref`, where the verdict has it; else the knob

Source: Transforming and Combining Rewards, arXiv:2402.00742; references there are a quantile (about 85 %) of the
rewards of supervised answers, or the reward of a canned refusal. `rescale` maps the values at 0 and 1 to 0 and 1, as a
third party's code does, without references.
Odd cases: a shift per prompt is not cancelled by a group's z-score here, for the sigmoid is not linear. A reward that a
verdict lacks is 0. Rewards should be logits; those in [0, 1] hardly saturate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reward._named import component


@dataclass(frozen=True)
class LogSigmoid:
    """r [-2, 0, 2], ref 1: [-3.048587, -1.313262, -.313262]. Two: (2, -2) -2.253856, (0, 0) -1.386294."""

    rewards: tuple[str, ...] = knob(("reward",), "raw rewards by name; reward: the combined one so far")
    reference: float = knob(0.0, "ref, where the verdict names none", unit="reward")
    rescale: bool = knob(False, "map the value at rewards of 0 to 0 and at rewards of 1 to 1")

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        total_N = sum(self._one(batch, name, reward_N) for name in self.rewards)
        if self.rescale:
            low, high = (float(logsigmoid(torch.tensor(x - self.reference))) for x in (0.0, 1.0))
            total_N = (total_N / len(self.rewards) - low) / (high - low)
        return torch.where(reward_N.isnan(), reward_N, total_N)

    def _one(self, batch: Batch, name: str, reward_N: Tensor) -> Tensor:
        reference_N = batch.rewards.get(f"{name}_ref", torch.full_like(reward_N, self.reference))
        reference_N = reference_N.nan_to_num(nan=self.reference)
        return logsigmoid(component(batch, name, reward_N) - reference_N)
