"""Train on every group, also on those whose rewards are all equal (their advantage is 0; only regularisers act).

    keep_i = 1

Source: GRPO as in DeepSeekMath, arXiv:2402.03300.
Odd case: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from services.learning.batch import Batch


@dataclass(frozen=True)
class AllGroups:
    """
    >>> AllGroups().reason
    'unselected'
    """

    reason: ClassVar[str] = "unselected"

    def __call__(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch), dtype=torch.bool, device=batch.group_N.device)
