"""Stages of reward: readable, then well formed, then right (progressive reward shaping, PRS).

    0 where nothing can be read;   `parsed` where it can, in the wrong format;   base + (1 - base) score else

Source: PRS and VSPO, arXiv:2512.07478: the stages; their values are a guess. The score is the reward so far, within
[0, 1]: a check's partial accuracy, or a judge's. The format is the raw reward `format`, right from 1.
Odd cases: a violation counts as unreadable. A verdict without a format reward is well formed. A rollout without a
reward stays without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.advantage._group import named
from services.learning.batch import Batch
from sluice.v1 import rollout_pb2


@dataclass(frozen=True)
class Progressive:
    """Unreadable 0; wrong format .1; score .5: .6; score 1: 1."""

    parsed: float = knob(0.1, "reward of what can be read, in the wrong format", unit="reward", ge=0, le=1)
    base: float = knob(0.2, "reward of a well formed answer of score 0", unit="reward", ge=0, le=1)
    format: str = knob("format", "raw reward that says whether the format is right")

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        outcome_N = batch.outcome_N
        unread_N = outcome_N == rollout_pb2.VERDICT_OUTCOME_UNPARSABLE
        unread_N = unread_N | (outcome_N == rollout_pb2.VERDICT_OUTCOME_VIOLATION)
        formed_N = named(batch, self.format).nan_to_num(nan=1.0) >= 1
        staged_N = torch.where(formed_N, self.base + (1 - self.base) * reward_N.clamp(0, 1), self.parsed)
        return torch.where(reward_N.isnan(), reward_N, torch.where(unread_N, 0.0, staged_N)).to(reward_N.dtype)
