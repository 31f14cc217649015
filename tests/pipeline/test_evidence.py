"""Which verdicts the posterior and the report count."""

from __future__ import annotations

import pytest

from pipeline.evidence import is_evidence, unseen
from sluice.v1 import prompt_pb2, rollout_pb2

RIGHT = {"outcome": rollout_pb2.VERDICT_OUTCOME_CORRECT, "prompt_id": "p1", "accuracy": 1.0}


@pytest.mark.parametrize("outcome", [o for o in rollout_pb2.VerdictOutcome.values() if 0 < o < 7])
def test_what_a_check_found_out_is_evidence(outcome):
    assert is_evidence(rollout_pb2.Verdict(**(RIGHT | {"outcome": outcome})))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"outcome": rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR}, "infra_error"),
        ({"outcome": rollout_pb2.VERDICT_OUTCOME_NOT_RUN}, "not_run"),
        ({"outcome": rollout_pb2.VERDICT_OUTCOME_UNSPECIFIED}, "unspecified"),
        ({"purpose": prompt_pb2.PURPOSE_EVALUATE}, "evaluation"),
        ({"prompt_id": ""}, "no_prompt"),
    ],
)
def test_what_says_nothing_of_the_prompt_is_left_out_with_its_reason(changed, reason):
    verdict = rollout_pb2.Verdict(**(RIGHT | changed))
    assert unseen(verdict) == reason
    assert not is_evidence(verdict)


@pytest.mark.parametrize("accuracy", [-0.1, 1.1, float("nan")])
def test_an_accuracy_that_cannot_be_is_no_evidence(accuracy):
    assert not is_evidence(rollout_pb2.Verdict(**(RIGHT | {"accuracy": accuracy})))
