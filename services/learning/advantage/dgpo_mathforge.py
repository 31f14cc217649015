"""Mean absolute deviation as scale, and more weight for hard questions (DGPO of MathForge: DGAE and DQW).

    A_i = n (r_i - mean) / (sum_j |r_j - mean| + eps)  *  tokens / tokens of mixed groups  *  lambda_q
    lambda_q = Q softmax_q(-m_q / T) over the Q mixed groups of the step; m_q: mean of the main reward in the group,
    and 1 where every rollout fails it

Source: MathForge and its released TRL fork. The sum of |A| over a mixed group is its size, whatever its difficulty.
Odd cases: a group of equal rewards, or of one, gets 0 and has no weight. Without a mixed group all factors are 1.
Statistics are of the whole step, so the fork's factor for unequal processes is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import mixed, named, per_group
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_range, group_size, group_sum, row_count


@dataclass(frozen=True)
class DgpoMathforge:
    """[1, 0, 0, 0], eps 1e-4: [1.999867, -.666622 x 3]; beside a group of mean .75 it weighs 1.124353."""

    eps: float = knob(1e-4, "added to the sum of absolute deviations", unit="reward", ge=0)
    weigh: bool = knob(True, "weigh questions by difficulty (DQW)")
    temperature: float = knob(2.0, "of the weights' softmax", unit="reward", gt=0)
    main: str = knob("accuracy", "raw reward that says how hard a question is; reward: the combined one")

    __post_init__ = check

    z_score: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> Tensor:
        above_N = batch.reward_N - group_mean(batch, batch.reward_N)
        mixed_N = mixed(batch, batch.reward_N)
        found_N = group_size(batch) * above_N / (group_sum(batch, above_N.abs()) + self.eps)
        found_N = torch.where(mixed_N, found_N, torch.zeros_like(found_N)) * self._tokens(batch, mixed_N)
        return found_N * self._difficulty(batch, mixed_N) if self.weigh else found_N

    def _tokens(self, batch: Batch, mixed_N: Tensor) -> Tensor:
        tokens_N = row_count(batch.mask_NT).double()
        every, live = batch.world.sum(torch.stack([tokens_N.sum(), (tokens_N * mixed_N).sum()]))
        return (every / live if live > 0 else torch.ones_like(every)).to(batch.reward_N.dtype)

    def _difficulty(self, batch: Batch, mixed_N: Tensor) -> Tensor:
        main_N = named(batch, self.main).nan_to_num(nan=0.0)
        mean_N = group_mean(batch, main_N)
        failed_N = (group_range(batch, main_N) == 0) & (mean_N <= 0)
        score_N = (-torch.where(failed_N, torch.ones_like(mean_N), mean_N) / self.temperature).exp()
        live_G = per_group(batch, mixed_N.to(score_N.dtype))
        total, count = batch.world.sum(torch.stack([(per_group(batch, score_N) * live_G).sum(), live_G.sum()]))
        return torch.where(mixed_N, score_N * count / total, torch.ones_like(score_N))
