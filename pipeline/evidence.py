"""Which verdicts say anything of how difficult their prompt is: one rule, for the posterior and for the report."""

from __future__ import annotations

from sluice.v1 import prompt_pb2, rollout_pb2

UNSEEN = {
    rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR: "infra_error",
    rollout_pb2.VERDICT_OUTCOME_NOT_RUN: "not_run",
    rollout_pb2.VERDICT_OUTCOME_UNSPECIFIED: "unspecified",
}
"""Outcomes that say nothing of the prompt."""
EVALUATE = prompt_pb2.PURPOSE_EVALUATE
OUT_OF_RANGE = "accuracy_out_of_range"


def unseen(verdict: rollout_pb2.Verdict) -> str:
    """Why the posterior has nothing to see in this verdict; empty when it has.

    >>> unseen(rollout_pb2.Verdict(outcome=rollout_pb2.VERDICT_OUTCOME_WRONG)), unseen(rollout_pb2.Verdict())
    ('no_prompt', 'unspecified')
    """
    if verdict.purpose == EVALUATE:
        return "evaluation"
    return UNSEEN.get(verdict.outcome, "" if verdict.prompt_id else "no_prompt")


def is_evidence(verdict: rollout_pb2.Verdict) -> bool:
    """Whether the posterior sees it: it says something, and what it says can be."""
    return not unseen(verdict) and 0 <= verdict.accuracy <= 1
