"""Which rollouts are reference answers that were put into a group, not sampled: 1 for them, 0 else, [N].

    a rollout whose first call has the role "demonstration"

Source: GRAO, arXiv:2508.07750, and other methods that train on a reference answer beside the policy's own.
Odd case: a rollout without calls is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch


@dataclass(frozen=True)
class Demonstration:
    """
    >>> Demonstration()
    Demonstration()
    """

    def __call__(self, batch: Batch, score: Callable[..., object]) -> Tensor:
        calls = (member.rollout.calls for member in batch.members)
        shown = [bool(found) and found[0].place.role == "demonstration" for found in calls]
        return torch.tensor(shown, dtype=batch.reward_N.dtype, device=batch.reward_N.device)
