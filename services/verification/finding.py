"""What a check found: plain data, before it is joined with the rollout it is about."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from sluice.v1.rollout_pb2 import (
    VERDICT_OUTCOME_CORRECT,
    VERDICT_OUTCOME_INFRA_ERROR,
    VERDICT_OUTCOME_NOT_RUN,
    VERDICT_OUTCOME_PARTIAL,
    VERDICT_OUTCOME_TIMEOUT,
    VERDICT_OUTCOME_UNPARSABLE,
    VERDICT_OUTCOME_VIOLATION,
    VERDICT_OUTCOME_WRONG,
    VerdictOutcome,
)

EVIDENCE_CHARS = 2000

RETRYABLE = frozenset(
    {"wall_limit", "worker_died", "worker_start", "pool_stuck", "unknown_prompt", "sandbox_lost", "endpoint"}
)
"""Reasons of an INFRA_ERROR that another try may cure."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is true of one answer.

    `accuracy` in [0, 1], 1 exactly when `outcome` is CORRECT. `rewards` are raw (name, value) pairs. `tests` has one
    flag per test. `reason` is one of a bounded set. `cpu_s` is the candidate's CPU time, or the check's own
    where no candidate runs, `wall_s` how long the check took, both in seconds.
    """

    outcome: int
    accuracy: float
    rewards: tuple[tuple[str, float], ...] = ()
    tests: tuple[bool, ...] = ()
    evidence: str = ""
    reason: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        if (self.accuracy == 1.0) != (self.outcome == VERDICT_OUTCOME_CORRECT) or not 0.0 <= self.accuracy <= 1.0:
            raise ValueError(f"accuracy is {self.accuracy} for {self.name}; accepted: 1 exactly when CORRECT")
        if len(self.evidence) > EVIDENCE_CHARS:
            object.__setattr__(self, "evidence", self.evidence[: EVIDENCE_CHARS - 1] + "…")

    @property
    def name(self) -> str:
        """Outcome as a short word, for labels.

        >>> correct().name, unparsable("no_box").name
        ('CORRECT', 'UNPARSABLE')
        """
        return VerdictOutcome.Name(self.outcome).removeprefix("VERDICT_OUTCOME_")

    @property
    def retryable(self) -> bool:
        """Whether the checker failed in a way that another try may cure."""
        return self.outcome == VERDICT_OUTCOME_INFRA_ERROR and self.reason in RETRYABLE

    @property
    def lasting(self) -> bool:
        """Whether the same answer would be found the same again: it may be remembered."""
        return self.outcome not in (VERDICT_OUTCOME_INFRA_ERROR, VERDICT_OUTCOME_TIMEOUT, VERDICT_OUTCOME_NOT_RUN)

    @property
    def rewarded(self) -> bool:
        """Whether it says something of the answer that a raw reward may be made of."""
        return self.outcome not in (VERDICT_OUTCOME_INFRA_ERROR, VERDICT_OUTCOME_NOT_RUN)

    def with_tests(
        self, tests: tuple[bool, ...], rewards: tuple[tuple[str, float], ...] = (), cpu_s: float = 0.0
    ) -> Finding:
        """The same, with a flag per test, raw rewards, and the CPU time that the candidate took, seconds."""
        return replace(self, tests=tests, rewards=rewards, cpu_s=cpu_s)

    def took(self, wall_s: float, cpu_s: float = 0.0) -> Finding:
        """The same, with how long it took; and with this CPU time, where it has none of its own."""
        return replace(self, wall_s=wall_s, cpu_s=self.cpu_s or cpu_s)

    def remembered(self) -> Finding:
        """The same, as it is when it is known already: it took nothing."""
        return replace(self, wall_s=0.0, cpu_s=0.0)


def encode(findings: list[Finding]) -> bytes:
    """As JSON, for the way out of a worker: what comes from there is read as plain data, never unpickled."""
    return json.dumps([[getattr(found, name) for name in Finding.__slots__] for found in findings]).encode()


def decode(data: bytes) -> list[Finding]:
    """The inverse of `encode`.

    >>> decode(encode([wrong(evidence="said 3", rewards=(("score", 0.1),))]))[0].rewards
    (('score', 0.1),)
    """
    return [
        Finding(outcome, accuracy, tuple((name, value) for name, value in rewards), tuple(tests), *rest)
        for outcome, accuracy, rewards, tests, *rest in json.loads(data)
    ]


def correct(evidence: str = "", rewards: tuple[tuple[str, float], ...] = ()) -> Finding:
    """It is right."""
    return Finding(VERDICT_OUTCOME_CORRECT, 1.0, rewards, evidence=evidence)


def wrong(evidence: str = "", rewards: tuple[tuple[str, float], ...] = (), reason: str = "") -> Finding:
    """It was readable, and is not right."""
    return Finding(VERDICT_OUTCOME_WRONG, 0.0, rewards, evidence=evidence, reason=reason)


def partial(accuracy: float, evidence: str = "", rewards: tuple[tuple[str, float], ...] = ()) -> Finding:
    """It is right in part; accuracy in [0, 1)."""
    return Finding(VERDICT_OUTCOME_PARTIAL, accuracy, rewards, evidence=evidence)


def unparsable(reason: str, evidence: str = "") -> Finding:
    """No answer could be read from it."""
    return Finding(VERDICT_OUTCOME_UNPARSABLE, 0.0, evidence=evidence, reason=reason)


def timeout(reason: str, cpu_s: float = 0.0, evidence: str = "") -> Finding:
    """The answer used up what its check may use."""
    return Finding(VERDICT_OUTCOME_TIMEOUT, 0.0, evidence=evidence, reason=reason, cpu_s=cpu_s)


def violation(reason: str, evidence: str = "") -> Finding:
    """It tried what it may not."""
    return Finding(VERDICT_OUTCOME_VIOLATION, 0.0, evidence=evidence, reason=reason)


def infra_error(reason: str, evidence: str = "") -> Finding:
    """The checker failed: says nothing of the answer."""
    return Finding(VERDICT_OUTCOME_INFRA_ERROR, 0.0, evidence=evidence, reason=reason)


def not_run(reason: str) -> Finding:
    """There was nothing to check."""
    return Finding(VERDICT_OUTCOME_NOT_RUN, 0.0, reason=reason)
