"""Imitate a reference answer while it is better than the policy's own, then explore (GRAO).

    rollouts:   A_i (1 + lambda),     reference answer:   G (beta A_y - lambda mean_i A_i),     A = z-score of the group
    which, averaged over G, is   mean A_i J(o_i) + beta A_y J(y) + lambda mean A_i (J(o_i) - J(y))

Source: GRAO, arXiv:2508.07750, eq. 2 to 4: J is a length-normalised log-likelihood, without ratio or clip. Whether y is
in the group's statistics is ambiguous there: `inside` (the text), or not (eq. 4 sums over G only).
A reference answer is a rollout whose calls have the role "demonstration"; `signal/demonstration.py` finds it.
Odd cases: a group without one is GRPO times 1 + lambda; equal rewards get 0. The mean over rows divides by G + 1 where
the paper has G: the whole group's scale, not its shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_mean
from services.learning.batch import Batch
from services.learning.reduce import group_sum


@dataclass(frozen=True)
class Grao:
    """R [0, 1, 0], reference 1, inside: A = [-1, 1, -1 | 1]; / G: [-.533333, .533333, -.533333], reference .7."""

    beta: float = knob(0.5, "weight of imitation", ge=0)
    strength: float = knob(0.6, "lambda: weight of alignment", ge=0)
    inside: bool = knob(True, "whether the reference answer is in its group's mean and std")
    ddof: int = knob(0, "1: divide squares by n - 1; 0: by n", choices=(0, 1))
    eps: float = knob(1e-8, "added to the std", unit="reward", ge=0)

    __post_init__ = check

    z_score: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"demonstration"})

    def __call__(self, batch: Batch) -> Tensor:
        shown_N = batch.signals["demonstration"] > 0
        normal_N = self._normal(batch, torch.ones_like(shown_N) if self.inside else ~shown_N)
        count_N = group_sum(batch, (~shown_N).to(normal_N.dtype))
        pull_N = count_N * (self.beta * normal_N - self.strength * masked_mean(batch, normal_N, ~shown_N))
        return torch.where(shown_N, pull_N, (1 + self.strength) * normal_N)

    def _normal(self, batch: Batch, counted_N: Tensor) -> Tensor:
        above_N = batch.reward_N - masked_mean(batch, batch.reward_N, counted_N)
        count_N = group_sum(batch, counted_N.to(above_N.dtype))
        square_N = group_sum(batch, torch.where(counted_N, above_N**2, torch.zeros_like(above_N)))
        std_N = (square_N / (count_N - self.ddof).clamp(min=1)).sqrt()
        return torch.where(std_N > 1e-12, above_N / (std_N + self.eps), torch.zeros_like(above_N))
