"""Part of a multi-choice answer is worth its part: nothing wrong may be in it (TW-GRPO's soft reward).

    r = |said| / |expected|   where said is a subset of expected,   else 0

Source: TW-GRPO and its released code. The counts are raw rewards of the check `multiple_choice`: how many choices were
said, how many of them are right, how many are expected.
Odd case: a rollout whose verdict has no counts keeps its reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.advantage._group import named
from services.learning.batch import Batch


@dataclass(frozen=True)
class MultiChoice:
    """Said {a}, expected {a, b, c}: .333333; said {a, d}: 0."""

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        said_N, right_N, expected_N = (named(batch, name) for name in ("said", "right", "expected"))
        worth_N = torch.where(said_N == right_N, right_N / expected_N.clamp(min=1), torch.zeros_like(right_N))
        known_N = ~(said_N + right_N + expected_N + reward_N).isnan()
        return torch.where(known_N, worth_N, reward_N)
