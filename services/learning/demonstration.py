"""Demonstrations among rollouts: answers that a teacher wrote, which came in whole as injected tokens."""

from __future__ import annotations

from torch import Tensor

from services.learning.batch import Batch
from sluice.v1 import rollout_pb2


def demonstrations(batch: Batch) -> Tensor:
    """True on the tokens of rollouts whose every token was injected, [N, T]. They are not in the batch's mask."""
    written_NT = batch.valid_NT & (batch.kind_NT == rollout_pb2.TOKEN_KIND_INJECTED)
    whole_N = (written_NT == batch.valid_NT).all(1)
    return written_NT & whole_N[:, None]
