"""What says anything of how difficult a prompt is, verdicts and movements: one rule, for posterior and report."""

from __future__ import annotations

import math

from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

UNSEEN = {
    rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR: "infra_error",
    rollout_pb2.VERDICT_OUTCOME_NOT_RUN: "not_run",
    rollout_pb2.VERDICT_OUTCOME_UNSPECIFIED: "unspecified",
}
"""Outcomes that say nothing of the prompt."""
EVALUATE = prompt_pb2.PURPOSE_EVALUATE
OUT_OF_RANGE = "accuracy_out_of_range"
IMPOSSIBLE = "movement_not_a_distance"
"""Why a movement is left out."""


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


def movements(step: training_pb2.TrainStep) -> list[tuple[str, float]]:
    """(prompt id, nats) of the movements that a step measured, without those that are no distance.

    >>> shifts = [{"prompt_id": id, "mean_abs_logprob_change": d} for id, d in (("a", 0.5), ("b", -1), ("c", math.nan))]
    >>> movements(training_pb2.TrainStep(shifts=shifts))
    [('a', 0.5)]
    """
    told = ((shift.prompt_id, shift.mean_abs_logprob_change) for shift in step.shifts)
    return [(prompt_id, nats) for prompt_id, nats in told if math.isfinite(nats) and nats >= 0]
