"""Answers of high entropy are left out, the others pay for theirs (GTPO's entropy filter).

    H_i = mean token entropy of the answer;    A_i = 0 where H_i > limit,    else A_i - price H_i

Source: GTPO, arXiv:2508.03772, and its released code (limit 0.7, about ln 2; price 0.1), beside `gtpo_conflict`.
Odd cases: the price is paid with either sign, and by A = 0 too: a group of equal rewards is pushed down a little. An
answer without a trained token has entropy 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token, row_mean


@dataclass(frozen=True)
class GtpoEntropy:
    """A = [.5, -.5, -.5, .5], H = [.3, .9, .2, .5]: [.47, 0, -.52, .45]."""

    limit: float = knob(0.7, "mean entropy above which an answer is left out", unit="nats", ge=0)
    price: float = knob(0.1, "taken off the advantage per nat of mean entropy", unit="advantage per nat", ge=0)

    __post_init__ = check

    modifies: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        entropy = per_token(row_mean(batch.signals["entropy"], batch.mask_NT), advantage).to(advantage.dtype)
        return torch.where(entropy > self.limit, torch.zeros_like(advantage), advantage - self.price * entropy)
