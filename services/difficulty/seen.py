"""Which verdicts the posterior must see."""

from __future__ import annotations

from sluice.v1 import prompt_pb2, rollout_pb2

UNSEEN = {
    rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR: "infra_error",
    rollout_pb2.VERDICT_OUTCOME_NOT_RUN: "not_run",
    rollout_pb2.VERDICT_OUTCOME_UNSPECIFIED: "unspecified",
}
"""Outcomes that say nothing of the prompt."""


def unseen(verdict: rollout_pb2.Verdict) -> str:
    """Why the posterior must not see this verdict; empty when it must."""
    if verdict.purpose == prompt_pb2.PURPOSE_EVALUATE:
        return "evaluation"
    reason = UNSEEN.get(verdict.outcome)
    if reason:
        return reason
    if not verdict.prompt_id:
        return "no_prompt"
    return "" if 0 <= verdict.accuracy <= 1 else "accuracy_out_of_range"
