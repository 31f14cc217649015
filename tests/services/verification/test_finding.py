import pytest

from services.verification.finding import Finding, correct, decode, encode, infra_error, partial, timeout, wrong
from sluice.v1 import rollout_pb2


def test_accuracy_is_one_exactly_when_correct():
    with pytest.raises(ValueError, match="exactly when CORRECT"):
        Finding(rollout_pb2.VERDICT_OUTCOME_WRONG, 1.0)
    with pytest.raises(ValueError, match="exactly when CORRECT"):
        Finding(rollout_pb2.VERDICT_OUTCOME_CORRECT, 0.5)
    with pytest.raises(ValueError, match="exactly when CORRECT"):
        partial(1.0)


def test_evidence_is_cut_at_2000_characters():
    assert len(wrong("x" * 5000).evidence) == 2000


def test_a_finding_survives_its_way_out_of_a_worker():
    found = [Finding(rollout_pb2.VERDICT_OUTCOME_WRONG, 0.0, (("score", 0.25),), (True, False), "e", "r", 0.5, 0.1)]
    assert decode(encode(found)) == found


def test_only_our_passing_failures_are_tried_again_and_only_lasting_findings_are_remembered():
    assert infra_error("worker_died").retryable
    assert not infra_error("bad_spec").retryable
    assert not timeout("cpu_limit").retryable
    assert correct().lasting
    assert not timeout("cpu_limit").lasting
    assert not infra_error("worker_died").lasting
