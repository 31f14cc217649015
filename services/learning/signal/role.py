"""Which functional group speaks at each token, [N, T]: equal numbers for equal roles, the same on every rank.

    role_t = a number made of the role of the call that holds token t

Source: AdvEvo-MARL shares one baseline among agents of one functional group (attackers, defenders).
Odd case: calls without a role share one number. The number is a checksum of the role's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal._calls import spread


@dataclass(frozen=True)
class Role:
    """
    >>> Role()
    Role()
    """

    def __call__(self, batch: Batch, score: Callable[..., object]) -> Tensor:
        names = sorted({call.place.role for member in batch.members for call in member.rollout.calls})
        numbers = {name: number for number, name in enumerate(names)}
        sums = torch.tensor([zlib.crc32(name.encode()) for name in names] or [0], device=batch.token_NT.device)
        index_NT = spread(batch, lambda call: numbers[call.place.role]).long()
        return torch.where(batch.valid_NT, sums[index_NT], torch.zeros_like(index_NT))
