"""The account as data, as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 20
"""Names that a list of the text shows."""


@dataclass(frozen=True)
class Audit:
    """Where every requested rollout stands: the first line of fields adds up to `requested`.

    `in_flight_by`: "out" (deadline and grace not passed), "ready" (verified, waits to be trained on), "decided" (ended,
    its outcome comes with the next checkpoint). `lost_names`: rollout -> why it counts as lost. `reused`: uses after
    the first. `voided_steps`: steps that a restart took back. `carried`: of those that ended, the
    ones known only from the newest checkpoint's count, because retention removed their records. `below_retention`:
    records that their topic no longer holds, by topic. `problems`: what contradicts what, one sentence each. `source`:
    of a relearn, the run whose stream the account is of.
    """

    requested: int = 0
    trained: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    lost: int = 0
    in_flight_by: dict[str, int] = field(default_factory=dict)
    lost_names: dict[str, str] = field(default_factory=dict)
    trained_twice: int = 0
    trained_twice_names: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    rollouts: int = 0
    verdicts: int = 0
    superseded: int = 0
    late: int = 0
    reused: int = 0
    steps: int = 0
    voided_steps: int = 0
    epochs: int = 0
    checkpoint_step: int | None = None
    version: int = 0
    finished: bool = False
    unreadable: int = 0
    carried: int = 0
    below_retention: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    source: str = ""

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing trained twice, nothing contradicts anything."""
        return not (self.lost or self.trained_twice or self.problems)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "problems": list(self.problems), "clean": self.clean}


def render(audit: Audit) -> str:
    """For people.

    >>> print(render(Audit(requested=3, trained=2, in_flight=1, in_flight_by={"out": 1})))
    requested            3
      trained            2
      in flight          1   out 1
      lost               0
      trained twice      0
    rollouts 0 (superseded 0, late 0), verdicts 0, steps 0 (voided 0), epochs 0, version 0, no checkpoint
    clean: every requested rollout is accounted for
    """
    lines = [audit.source] if audit.source else []
    lines += [_row("requested", audit.requested), _row("  trained", audit.trained)]
    for label, by in (("dropped", audit.dropped), ("expired", audit.expired), ("failed", audit.failed)):
        number = by if isinstance(by, int) else sum(by.values())
        if number:
            lines.append(_row(f"  {label}", number, by if isinstance(by, dict) else {}))
    lines.append(_row("  in flight", audit.in_flight, audit.in_flight_by))
    lines += [_row("  lost", audit.lost), _row("  trained twice", audit.trained_twice)]
    held = "no checkpoint" if audit.checkpoint_step is None else f"checkpoint of step {audit.checkpoint_step}"
    lines.append(
        f"rollouts {audit.rollouts} (superseded {audit.superseded}, late {audit.late}), verdicts {audit.verdicts}, "
        f"steps {audit.steps} (voided {audit.voided_steps}), epochs {audit.epochs}, version {audit.version}, {held}"
    )
    if audit.below_retention:
        gone = ", ".join(f"{topic} {number}" for topic, number in sorted(audit.below_retention.items()))
        lines.append(f"below retention: {gone} records; {audit.carried} rollouts by the checkpoint's count")
    lines += _listed("lost", audit.lost_names) + _listed("trained twice", audit.trained_twice_names)
    lines += [f"problem: {problem}" for problem in audit.problems]
    lines.append("clean: every requested rollout is accounted for" if audit.clean else "NOT CLEAN")
    return "\n".join(lines)


def _row(label: str, number: int, by: dict[str, int] | None = None) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted((by or {}).items()))
    return f"{label:<18}{number:>4}   {reasons}".rstrip()


def _listed(what: str, named: dict[str, str]) -> list[str]:
    shown = [f"{what}: {name}: {why}" for name, why in list(named.items())[:SHOWN]]
    return shown + ([f"{what}: and {len(named) - SHOWN} more"] if len(named) > SHOWN else [])
