"""One value per call of a rollout: made from the call, spread over its tokens, read at its last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    call_NT, rows_N = batch.call_NT, (batch.length_N > 0).nonzero().flatten()
    end_NT = torch.zeros(call_NT.shape, dtype=torch.bool, device=call_NT.device)
    torch.ne(call_NT[:, 1:], call_NT[:, :-1], out=end_NT[:, :-1])
    end_NT[rows_N, batch.length_N[rows_N] - 1] = True
    return end_NT


@dataclass(frozen=True)
class Calls:
    """The calls of a batch that hold tokens, K of them, in order: what is equal all along a call is reckoned once.

    `row_K` is a call's rollout, `call_K` its number there, `end_K` the place of its last token.
    """

    batch: Batch
    row_K: Tensor
    call_K: Tensor
    end_K: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Calls:
        """The calls of this batch."""
        row_K, end_K = last_of_call(batch).nonzero().unbind(1)
        return cls(batch, row_K, batch.call_NT[row_K, end_K], end_K)

    def last(self, x_NT: Tensor) -> Tensor:
        """`x_NT` at each call's last token, [K]."""
        return x_NT[self.row_K, self.end_K]

    def count(self, mask_NT: Tensor) -> Tensor:
        """Marked tokens of each call, [K], float."""
        upto_K = self.last(mask_NT.to(torch.float32).cumsum(1)).to(self.batch.behaviour_NT.dtype)
        before_K = torch.nn.functional.pad(upto_K, (1, 0))[:-1]
        first_K = torch.nn.functional.pad(self.row_K, (1, 0), value=-1)[:-1] != self.row_K
        return upto_K - torch.where(first_K, torch.zeros_like(before_K), before_K)

    def table(self, x_K: Tensor) -> Tensor:
        """`x_K` with a row for each rollout, [N, C]; 0 where a rollout has no such call."""
        width = int(self.call_K.max()) + 1 if len(self.call_K) else 1
        return x_K.new_zeros((len(self.batch), width)).index_put((self.row_K, self.call_K), x_K)

    def along(self, x_K: Tensor) -> Tensor:
        """`x_K` on every token of its call, [N, T]; what padding gets is of no meaning."""
        table_NC = self.table(x_K)
        if table_NC.shape[1] == 1:
            return table_NC.expand(self.batch.call_NT.shape)
        return table_NC.gather(1, self.batch.call_NT)
