"""What each outcome of a verdict is worth.

    r_i = table[outcome_i],   PARTIAL: the raw reward named `raw`, or the accuracy where the verdict has none of it

Source: the usual binary reward of RL from verifiable rewards (DeepSeek-R1, DAPO); DAPO's script uses 1 and -1.
Odd case: INFRA_ERROR and NOT_RUN say nothing of the answer: the reward is NaN, which drops the rollout ("infra_error",
"not_run") before any group statistic is taken. Accuracy is a field of its own and is never touched here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from sluice.v1 import rollout_pb2


@dataclass(frozen=True)
class OutcomeTable:
    """
    >>> OutcomeTable(wrong=-1.0).values()[:3]      # unspecified, CORRECT, WRONG
    [nan, 1.0, -1.0]
    """

    correct: float = knob(1.0, "reward of CORRECT", unit="reward")
    wrong: float = knob(0.0, "reward of WRONG", unit="reward")
    unparsable: float = knob(0.0, "reward of UNPARSABLE", unit="reward")
    violation: float = knob(0.0, "reward of VIOLATION", unit="reward")
    timeout: float = knob(0.0, "reward of TIMEOUT: the candidate used up its CPU limit", unit="reward")
    raw: str = knob("accuracy", "which raw named reward PARTIAL is worth")

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        table = torch.tensor(self.values(), dtype=batch.accuracy_N.dtype, device=batch.accuracy_N.device)
        raw_N = batch.rewards.get(self.raw, batch.accuracy_N)
        raw_N = torch.where(raw_N.isnan(), batch.accuracy_N, raw_N)
        return torch.where(batch.outcome_N == rollout_pb2.VERDICT_OUTCOME_PARTIAL, raw_N, table[batch.outcome_N])

    def values(self) -> list[float]:
        """Worth by outcome number."""
        table = dict.fromkeys(rollout_pb2.VerdictOutcome.values(), float("nan"))
        table |= {
            rollout_pb2.VERDICT_OUTCOME_CORRECT: self.correct,
            rollout_pb2.VERDICT_OUTCOME_WRONG: self.wrong,
            rollout_pb2.VERDICT_OUTCOME_UNPARSABLE: self.unparsable,
            rollout_pb2.VERDICT_OUTCOME_VIOLATION: self.violation,
            rollout_pb2.VERDICT_OUTCOME_TIMEOUT: self.timeout,
        }
        return [table[number] for number in sorted(table)]
