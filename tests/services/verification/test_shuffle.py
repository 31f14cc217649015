"""Shuffled verdicts keep their number and lose their meaning."""

from services.verification.shuffle import Shuffle
from sluice.v1 import rollout_pb2

CORRECT, WRONG = rollout_pb2.VERDICT_OUTCOME_CORRECT, rollout_pb2.VERDICT_OUTCOME_WRONG


def verdict(number: int) -> rollout_pb2.Verdict:
    right = number % 2 == 0
    return rollout_pb2.Verdict(
        key=rollout_pb2.RolloutKey(request_id=f"r{number}"), outcome=CORRECT if right else WRONG, accuracy=float(right)
    )


def test_as_many_are_right_as_before_and_it_says_nothing_of_the_answer():
    verdicts = [verdict(number) for number in range(4000)]
    Shuffle(depth=64)(verdicts)
    assert abs(sum(one.accuracy for one in verdicts) - 2000) <= 64
    even = [one.accuracy for one in verdicts[64::2]]
    assert 0.45 < sum(even) / len(even) < 0.55


def test_what_was_not_checked_stays_as_it_is():
    failed = rollout_pb2.Verdict(outcome=rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR)
    Shuffle(depth=0 + 1)([verdict(0), failed, verdict(1)])
    assert failed.outcome == rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR
