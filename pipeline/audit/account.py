"""Where every requested rollout stands: one outcome, in flight, or lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.audit.checks import problems
from pipeline.audit.facts import Facts, Name, Request, shown
from pipeline.audit.result import Audit
from pipeline.audit.standing import Standing
from sluice.v1 import training_pb2

GRACE_MS = 300_000
"""After its deadline a rollout is waited for this long: the learner waits too, and may be in the middle of a step."""

Fate = training_pb2.Fate


@dataclass
class Tally:
    """The account while it is made."""

    trained: int = 0
    expired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    lost: dict[Name, str] = field(default_factory=dict)
    carried: dict[Name, str] = field(default_factory=dict)
    """Their outcome would lie where retention has removed records: they ended if the checkpoint's count covers them."""

    @classmethod
    def of(cls, ended: training_pb2.EndedCounts) -> Tally:
        """What a checkpoint counts."""
        return cls(ended.trained, ended.expired, Counter(ended.dropped), Counter(ended.failed))

    @property
    def ended(self) -> int:
        """All that have an outcome."""
        return self.trained + self.expired + sum(self.dropped.values()) + sum(self.failed.values())

    def beyond(self, held: Tally) -> Tally:
        """What this counts and `held` does not."""
        trained, expired = max(0, self.trained - held.trained), max(0, self.expired - held.expired)
        return Tally(trained, expired, self.dropped - held.dropped, self.failed - held.failed)

    def end(self, outcome: training_pb2.Outcome) -> None:
        """One that has its outcome."""
        if outcome.fate == Fate.FATE_TRAINED:
            self.trained += 1
        elif outcome.fate == Fate.FATE_EXPIRED:
            self.expired += 1
        elif outcome.fate == Fate.FATE_FAILED:
            self.failed[outcome.reason or "unknown"] += 1
        else:
            self.dropped[outcome.reason or "unknown"] += 1


def account(facts: Facts, now_ms: int, grace_ms: int = GRACE_MS) -> Audit:
    """Account for every requested rollout, and check what the topics say against each other. Pure."""
    standing = Standing(facts)
    tally = Tally()
    for request in facts.requests.values():
        for name in request.names():
            outcomes = standing.outcomes(name)
            if outcomes:
                tally.end(outcomes[0])
                continue
            where, why = _without_outcome(standing, request, name, now_ms - grace_ms)
            if where == "lost":
                tally.lost[name] = why
            elif where == "carried":
                tally.carried[name] = why
            else:
                tally.in_flight[where] += 1
    return _audit(standing, tally, problems(standing, settled=not tally.in_flight))


def _without_outcome(standing: Standing, request: Request, name: Name, overdue_ms: int) -> tuple[str, str]:
    """("lost", why), or where it is in flight."""
    partition, offset = request.place
    uses = standing.uses.get(name)
    decided = f"step {uses[-1][1]} trained on it" if uses else "it was dropped" if name in standing.drops else ""
    if standing.finished:
        where = "carried" if standing.facts.cut("outcomes", name[0]) else "lost"
        return where, f"the run has finished, {decided or 'nothing ended it'}, and it has no outcome"
    if offset < standing.read_past.get(partition, 0):
        step = standing.checkpoint.step if standing.checkpoint else 0
        where = "carried" if standing.facts.cut("outcomes", name[0]) else "lost"
        return where, f"the checkpoint of step {step} reads on behind its request, and it has no outcome"
    if decided:
        return "decided", ""
    if not 0 < request.deadline_ms < overdue_ms:
        return "out", ""
    if standing.verified(name):
        return "ready", ""
    return "lost", f"its deadline passed {(overdue_ms - request.deadline_ms) / 1000:.0f} s ago, beyond grace"


def _audit(standing: Standing, tally: Tally, problems: list[str]) -> Audit:
    facts, in_flight = standing.facts, sum(tally.in_flight.values())
    twice = {
        name: f"use {use} by steps {', '.join(str(step) for other, step in uses if other == use)}"
        for name, uses in standing.uses.items()
        for use, number in Counter(use for use, _ in uses).items()
        if number > 1
    }
    carried = _carried(standing, tally)
    superseded, late = _not_counted(standing)
    return Audit(
        requested=tally.ended + carried.ended + in_flight + len(tally.lost),
        trained=tally.trained + carried.trained,
        dropped=dict(tally.dropped + carried.dropped),
        expired=tally.expired + carried.expired,
        failed=dict(tally.failed + carried.failed),
        in_flight=in_flight,
        lost=len(tally.lost),
        in_flight_by=dict(tally.in_flight),
        lost_names={shown(name): why for name, why in tally.lost.items()},
        trained_twice=len(twice),
        trained_twice_names={shown(name): why for name, why in twice.items()},
        requests=len(facts.requests),
        rollouts=sum(map(len, facts.rollouts.values())),
        verdicts=sum(map(len, facts.verdicts.values())),
        superseded=superseded,
        late=late,
        reused=sum(use > 1 for uses in standing.uses.values() for use, _ in uses),
        steps=max(standing.steps, default=0),
        voided_steps=len(facts.steps) - len(standing.steps),
        epochs=max((one.epoch for one in (*facts.rewinds, *facts.steps, *facts.checkpoints)), default=0),
        checkpoint_step=standing.checkpoint.step if standing.checkpoint else None,
        version=max((one.version for one in facts.manifests), default=0),
        finished=standing.finished,
        unreadable=sum(facts.unreadable.values()),
        carried=carried.ended,
        below_retention={topic: gone for topic, gone in _gone(facts).items() if gone},
        problems=tuple(problems),
    )


def _carried(standing: Standing, held: Tally) -> Tally:
    """Rollouts that ended before what the topics hold, by the newest checkpoint's count."""
    gone = _gone(standing.facts)
    if standing.checkpoint is None or not (gone["requests"] or gone["outcomes"]):
        return Tally()
    carried = Tally.of(standing.checkpoint.ended).beyond(held)
    if len(held.carried) > carried.ended:  # more than the count covers: some of these are lost, and nothing says which
        held.lost |= held.carried
    return carried


def _not_counted(standing: Standing) -> tuple[int, int]:
    """(superseded, late): attempts after the first; those whose rollout had ended before any came."""
    superseded = late = 0
    for name, said in standing.facts.rollouts.items():
        outcomes = standing.outcomes(name)
        if outcomes and not outcomes[0].attempt:
            late += len(said)
        else:
            superseded += len(said) - 1
    return superseded, late


def _gone(facts: Facts) -> dict[str, int]:
    """Records that retention removed, by topic; compacted topics and weights forget on purpose."""
    kept = ("requests", "rollouts", "verdicts", "steps", "outcomes")
    return {topic: sum(first for first, _ in facts.bounds.get(topic, {}).values()) for topic in kept}
