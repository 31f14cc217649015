"""An auxiliary construction is rewarded only where it helps, and punished where it harms (GCPO of GeometryZero).

    mask = 1 if acc_with - acc_without > eps, -1 if < -eps, else 0:  of the group's rollouts with and without one
    r += w_aux * mask * construction + w_len * min(len / L0, 1)

Source: GeometryZero, arXiv:2506.07160: abstract and reviews; the weights, eps and the length's form are a guess.
Whether a rollout makes a construction is the raw reward `construction`.
Odd cases: a group without both kinds has mask 0. A rollout without a reward is not counted, and stays without. GCPO of
gold-answer injection is another method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_mean
from services.learning.batch import Batch
from services.learning.reduce import group_sum
from services.learning.reward._named import component


@dataclass(frozen=True)
class GcpoGeometry:
    """Accuracy with and without (.75, .25): mask 1; (.5, .5): 0; (.25, .75): -1."""

    aux: float = knob(0.5, "weight of a construction", unit="reward", ge=0)
    length: float = knob(0.1, "weight of length", unit="reward", ge=0)
    full: float = knob(1.0, "L0, length from which it counts in full: tokens when above 1, else a share of L_max", gt=0)
    eps: float = knob(0.1, "difference of accuracy that counts", unit="pass rate", ge=0)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        made_N = component(batch, "construction", reward_N) > 0
        full = self.full if self.full > 1 else self.full * batch.max_tokens
        bonus_N = self.aux * self.mask(batch, made_N, ~reward_N.isnan()) * made_N
        return reward_N + bonus_N + self.length * (batch.length_N / full).clamp(max=1).to(reward_N.dtype)

    def mask(self, batch: Batch, made_N: Tensor, known_N: Tensor) -> Tensor:
        """1, 0 or -1 for each rollout's group, [N]."""
        sides = [made_N & known_N, ~made_N & known_N]
        with_N, without_N = (masked_mean(batch, batch.accuracy_N, side_N) for side_N in sides)
        both_N = torch.stack([group_sum(batch, side_N.to(with_N.dtype)) > 0 for side_N in sides]).all(0)
        gap_N = with_N - without_N
        return torch.where(both_N & (gap_N.abs() > self.eps), gap_N.sign(), torch.zeros_like(gap_N))
