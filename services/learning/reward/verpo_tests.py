"""Each passed test counts by how rarely the group passes it and how few tests are like it (VeRPO).

    rho_j = the group's pass rate of test j,   N_j = sum_k exp(-(rho_j - rho_k)^2 / (2 sigma^2))
    w_j = exp(-alpha rho_j) / (N_j + delta),   r_i = r_i gamma^turns_i + beta sum_j w_j passed_ij

Source: VeRPO, arXiv:2601.03525, read in a review: A = (r - mean) + beta (turn reward - mean over all turns), without a
std, which a baseline of the group's mean makes of this sum where a rollout is judged once. alpha, sigma, delta, beta
and gamma are a guess. Flags per test come with the verdict.
Odd cases: a test that all or none pass shifts all alike and leaves with the mean. A verdict without flags in a group
that has tests (a crash) passed none. `normalise` divides by the sum of w, so that the number of tests does not matter.
A rollout without a reward is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch


@dataclass(frozen=True)
class VerpoTests:
    """Passes [110, 100, 111, 000]: rho [.75, .5, .25], w [.3145, .3166, .5186], worth [.6312, .3145, 1.1497, 0]."""

    alpha: float = knob(1.0, "how much a rare pass counts more", ge=0)
    sigma: float = knob(0.2, "pass rates this near are alike", unit="pass rate", gt=0)
    delta: float = knob(1e-6, "added to the density", ge=0)
    beta: float = knob(1.0, "weight of the tests", ge=0)
    gamma: float = knob(1.0, "discount of the outcome per turn", gt=0, le=1)
    normalise: bool = knob(False, "divide by the sum of the tests' weights")

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        passed_NJ, given_NJ = tests(batch, ~reward_N.isnan())
        if not passed_NJ.shape[1]:
            return reward_N
        worth_N = (self.weights(batch, passed_NJ, given_NJ)[batch.group_N] * passed_NJ).sum(1)
        turns_N = batch.turn_NT.amax(1) if batch.turn_NT.shape[1] else torch.zeros_like(batch.length_N)
        return reward_N * self.gamma ** (turns_N + 1 if self.gamma < 1 else 0) + self.beta * worth_N.to(reward_N.dtype)

    def weights(self, batch: Batch, passed_NJ: Tensor, given_NJ: Tensor) -> Tensor:
        """w, [G, J]; 0 for tests that a group does not have."""
        start_GJ = torch.zeros((batch.groups, passed_NJ.shape[1]), dtype=passed_NJ.dtype, device=passed_NJ.device)
        counted_NJ = given_NJ.to(passed_NJ.dtype)
        count_GJ = start_GJ.index_add(0, batch.group_N, counted_NJ)
        rho_GJ = start_GJ.index_add(0, batch.group_N, passed_NJ) / count_GJ.clamp(min=1)
        real_GJ = (count_GJ > 0).to(rho_GJ.dtype)
        near_GJJ = (-((rho_GJ[:, :, None] - rho_GJ[:, None, :]) ** 2) / (2 * self.sigma**2)).exp()
        density_GJ = (near_GJJ * real_GJ[:, None, :]).sum(2)
        weight_GJ = real_GJ * (-self.alpha * rho_GJ).exp() / (density_GJ + self.delta).clamp(min=1e-12)
        return weight_GJ / weight_GJ.sum(1, keepdim=True).clamp(min=1e-12) if self.normalise else weight_GJ


def tests(batch: Batch, known_N: Tensor) -> tuple[Tensor, Tensor]:
    """(1 where a rollout passed a test, True where its group has that test and the rollout counts), [N, J]."""
    flags = [member.verdict.tests for member in batch.members]
    count_N = torch.tensor([len(row) for row in flags], device=known_N.device)
    width = int(count_N.max()) if len(flags) else 0
    place_J = torch.arange(width, device=known_N.device)
    passed_NJ = torch.zeros((len(flags), width), dtype=batch.accuracy_N.dtype, device=known_N.device)
    every = torch.tensor([flag for row in flags for flag in row], dtype=passed_NJ.dtype, device=known_N.device)
    passed_NJ[place_J < count_N[:, None]] = every
    most_G = count_N.new_zeros(batch.groups).scatter_reduce(0, batch.group_N, count_N, "amax")
    given_NJ = (place_J < most_G[batch.group_N][:, None]) & known_N[:, None]
    return passed_NJ * given_NJ, given_NJ
