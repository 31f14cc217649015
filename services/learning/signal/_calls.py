"""One value per call of a rollout, spread over the tokens of the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from services.learning.batch import Batch
from sluice.v1 import rollout_pb2


def spread(batch: Batch, value: Callable[[rollout_pb2.Call], float]) -> Tensor:
    """`value` of the call that holds each token, [N, T], in the batch's floating dtype; 0 on padding."""
    rows = [[value(call) for call in member.rollout.calls] for member in batch.members]
    width = max((len(row) for row in rows), default=0)
    table_NC = torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=torch.float64)
    if not width:
        return torch.zeros_like(batch.behaviour_NT)
    found_NT = table_NC.to(batch.behaviour_NT).gather(1, batch.call_NT)
    return torch.where(batch.valid_NT, found_NT, torch.zeros_like(found_NT))


def last_of_call(batch: Batch) -> Tensor:
    """True at the last token of every call, [N, T]."""
    after_NT = torch.nn.functional.pad(batch.call_NT, (0, 1), value=-1)[:, 1:]
    place_T = torch.arange(batch.call_NT.shape[1], device=after_NT.device)
    return batch.valid_NT & ((after_NT != batch.call_NT) | (place_T == batch.length_N[:, None] - 1))
