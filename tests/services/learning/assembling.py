"""Requests, rollouts and verdicts for the assembler's tests, and a reader that hands them over in order."""

from collections import Counter
from dataclasses import dataclass, field

from pipeline.digest import rollout_sha256
from services.learning.assembler import Assembler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

Ending, Verdict, Fate = rollout_pb2.Ending, rollout_pb2.VerdictOutcome, training_pb2.Fate
DEADLINE_MS, GRACE_MS = 100_000, 1_000
LONG_AFTER = 10**9


def request(request_id, group_id="g", n=1, first_index=0, final=True, deadline_ms=DEADLINE_MS, redrives=""):
    return prompt_pb2.RolloutRequest(
        request_id=request_id,
        group_id=group_id,
        n=n,
        first_index=first_index,
        final=final,
        prompt_id="p",
        deadline_ms=deadline_ms,
        belief=prompt_pb2.Belief(mean=0.25),
        redrives=redrives,
    )


def rollout(request_id, index=0, attempt=1, token=7, ending=Ending.ENDING_STOP, reason=""):
    said = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id=request_id, index=index, attempt=attempt),
        calls=[rollout_pb2.Call(tokens=[token, attempt], spans=[rollout_pb2.Span(version=3)])],
        ending=ending,
        reason=reason,
    )
    said.sha256 = rollout_sha256(said)
    return said


def verdict(of, outcome=Verdict.VERDICT_OUTCOME_CORRECT):
    return rollout_pb2.Verdict(key=of.key, rollout_sha256=of.sha256, outcome=outcome)


@dataclass
class Reader:
    """Hands nouns to an assembler with rising offsets."""

    assembler: Assembler = field(default_factory=lambda: Assembler(grace_ms=GRACE_MS))
    next: Counter = field(default_factory=Counter)

    def read(self, *nouns):
        for noun in nouns:
            topic = {"RolloutRequest": "requests", "Rollout": "rollouts", "Verdict": "verdicts"}[noun.DESCRIPTOR.name]
            self.assembler.add(noun, (topic, 0, self.next[topic]))
            self.next[topic] += 1
        return self.assembler


def names(ends):
    return [(end.request_id, end.index, end.fate, end.reason) for end in ends]
