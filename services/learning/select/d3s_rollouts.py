"""The rollouts whose advantages vary most: the sample level of dynamic dual-level down-sampling.

    keep n rollouts of the step that maximise Var(A);  n = ceil(share * rows),
    share_t = (1 - tau) share + tau final,   tau = min(1, (version - 1) / steps)

The best n are some of the smallest advantages and the rest of the largest, so every split of the sorted advantages is
tried, in one pass. Advantages are not normalised again; what is left out is dropped as "down_sampled".

Source: D3S, arXiv:2509.22115, by a summary; the shares are not in it: a guess.
Odd cases: of equal advantages the likelihood of the answers decides (mean behaviour log-prob), so that the order of
arrival does not; all equal: any n stay. An advantage per token counts by its mean over the trained tokens. The whole
step is sorted, over all ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import row_mean


@dataclass(frozen=True)
class D3sRollouts:
    """A = [-1.5, -0.5, -0.5, 0.2, 0.8, 1.5], n = 4: rows 0, 1, 4, 5, variance 1.341875."""

    share: float = knob(0.5, "share of the step's rollouts that stay at first; a guess", gt=0, le=1)
    final: float = knob(1.0, "share that stays from `steps` on; a guess", gt=0, le=1)
    steps: int = knob(500, "versions over which the share goes from one to the other; a guess", ge=1)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"advantage"})
    reason: ClassVar[str] = "down_sampled"

    def __call__(self, batch: Batch) -> Tensor:
        advantage = batch.signals["advantage"]
        own_N = advantage if advantage.dim() == 1 else row_mean(advantage, batch.mask_NT)
        ties_N = row_mean(batch.behaviour_NT, batch.valid_NT).to(own_N.dtype)
        ranks = batch.world.gather_rows(torch.stack((own_N, ties_N), 1).to(batch.world.device))
        first = sum(len(rows) for rows in ranks[: batch.world.rank])
        every_N, ties_N = torch.cat(ranks).unbind(1)
        keep_N = self.most_spread(every_N, math.ceil(self.now(batch.version) * len(every_N)), ties_N)
        return keep_N[first : first + len(own_N)].to(batch.group_N.device)

    def now(self, version: int) -> float:
        """The share while `version` is trained."""
        tau = min(1.0, max(0, version - 1) / self.steps)
        return (1 - tau) * self.share + tau * self.final

    @staticmethod
    def most_spread(advantage_N: Tensor, n: int, ties_N: Tensor | None = None) -> Tensor:
        """The n of largest variance, bool [N]; `ties_N` puts equal ones in order."""
        before_N = torch.arange(len(advantage_N)) if ties_N is None else ties_N.argsort(stable=True)
        before_N = before_N.to(advantage_N.device)
        sorted_N, place_N = advantage_N.double()[before_N].sort(stable=True)
        order_N = before_N[place_N]
        low = torch.arange(n + 1, device=advantage_N.device)  # so many of the smallest, the rest of the largest
        start = sorted_N.new_zeros(1)
        total, square = torch.cat((start, sorted_N.cumsum(0))), torch.cat((start, (sorted_N**2).cumsum(0)))
        top = len(sorted_N) - n + low
        mean = (total[low] + total[-1] - total[top]) / max(n, 1)
        spread = (square[low] + square[-1] - square[top]) / max(n, 1) - mean**2
        # Splits that differ by rounding alone are the same: the one with the most of the smallest is taken.
        best = int((spread >= spread.max() - 1e-12).nonzero().max())
        keep = torch.zeros(len(sorted_N), dtype=torch.bool, device=advantage_N.device)
        keep[order_N[:best]] = True
        keep[order_N[len(sorted_N) - n + best :]] = True
        return keep
