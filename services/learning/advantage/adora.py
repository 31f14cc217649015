"""Groups whose right answers are not longer than their wrong ones count less (ADORA's length criterion).

    weight of a group = 1  if  longest right answer > mean length of its wrong ones shorter than `cap`,  else `low`

Source: ADORA's released code, which has two readings of empty sides: `llm`: no right answer -> `low`, no wrong -> 1;
`vl`: no right answer -> 1, no wrong -> `low`. Length is the paper's instance of a predicate on groups.
Odd cases: a group of one keeps weight 1. The weight acts after the normalisation: before it, it would cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import masked_extreme
from services.learning.batch import Batch
from services.learning.reduce import group_size, group_sum, per_token


@dataclass(frozen=True)
class Adora:
    """r [1, 0, 0, 0], lengths [900, 500, 600, 700]: unchanged; [300, 500, 600, 700]: times .1, [.15, -.05 x 3]."""

    low: float = knob(0.1, "weight of the other groups", ge=0, le=1)
    right: float = knob(0.5, "accuracy above which an answer is right", ge=0, lt=1)
    cap: float = knob(1.0, "wrong answers shorter than this count: tokens when above 1, else a share of L_max", gt=0)
    empty: str = knob("llm", "how an empty side is read", choices=("llm", "vl"))

    __post_init__ = check

    modifies: ClassVar[bool] = True

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        return advantage * per_token(self.weight(batch).to(advantage.dtype), advantage)

    def weight(self, batch: Batch) -> Tensor:
        """[N], equal inside a group."""
        length_N = batch.length_N.to(batch.accuracy_N.dtype)
        right_N = batch.accuracy_N > self.right
        cap = self.cap if self.cap > 1 else self.cap * batch.max_tokens
        wrong_N = (~right_N & (length_N < cap)).to(length_N.dtype)
        longest_N = masked_extreme(batch, length_N, right_N, "amax")
        count_N = group_sum(batch, wrong_N)
        mean_N = group_sum(batch, wrong_N * length_N) / count_N
        mean_N = torch.where(count_N > 0, mean_N, float("-inf") if self.empty == "llm" else float("inf"))
        keep_N = (longest_N > mean_N) | (group_size(batch) == 1)
        if self.empty == "vl":
            keep_N = keep_N | longest_N.isinf()
        else:
            keep_N = keep_N & (~longest_N.isinf() | (group_size(batch) == 1))
        return torch.where(keep_N, 1.0, self.low)
