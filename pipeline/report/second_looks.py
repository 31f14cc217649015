"""What second looks say of a run's checks: how often each errs, what that bounds, and whether the reward is gamed.

Formulas: `pipeline/verifier_errors.py` (after "Inference Scaling FLaws") and `pipeline/reward_hack.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import reward_hack
from pipeline.report.data import Looked, RunData
from pipeline.verifier_errors import UNDECIDED, Errors, Rate, after, right_of_accepted, second_look, true_pass_rate

TRIES = 10
SHARE = 4
"""The first and the last quarter of the second looks are compared."""
ENOUGH = 80
"""Second looks from which on they are."""


@dataclass(frozen=True)
class CheckErrors:
    """One row of the report's table: rates as text, and what they bound in one sentence."""

    check: str
    hidden: str
    false_positives: str
    false_negatives: str
    apart: int
    bound: str


@dataclass(frozen=True)
class SecondLooks:
    """The report's section."""

    checks: list[CheckErrors]
    drift: str
    alarm: bool


def second_looks(run: RunData) -> SecondLooks | None:
    """The section; None when nothing was looked at twice."""
    if not run.looked:
        return None
    pairs = sorted({(one.checker, one.hidden_checker) for one in run.looked})
    checks = [
        _check(check, hidden, [one for one in run.looked if (one.checker, one.hidden_checker) == (check, hidden)], run)
        for check, hidden in pairs
    ]
    pairs_decided = decided(run.looked)
    count = len(pairs_decided)
    drift = reward_hack.over(pairs_decided, count // SHARE) if count >= ENOUGH else None
    return SecondLooks(checks, said(drift, count), bool(drift and drift.alarm))


def decided(looked: Sequence[Looked]) -> list[reward_hack.Looked]:
    """(accepted, accepted by the hidden check) of what both decided, in order."""
    return [
        (one.outcome == "CORRECT", one.hidden_outcome == "CORRECT")
        for one in looked
        if second_look(one.outcome, one.hidden_outcome) != "apart"
    ]


def said(drift: reward_hack.Drift | None, count: int) -> str:
    """Whether the reward rises without the hidden check, in one sentence.

    >>> said(None, 12)
    'Whether the reward rises without the hidden check cannot be told from 12 second looks; 80 would do.'
    """
    if drift is None:
        return (
            f"Whether the reward rises without the hidden check cannot be told from {count} second looks; "
            f"{ENOUGH} would do."
        )
    verdict = (
        "The reward rises and the hidden check's does not keep up with it"
        if drift.alarm
        else "No sign of a gamed reward"
    )
    return (
        f"{verdict}: from the first to the last quarter of the second looks, the share accepted changed by "
        f"{drift.reward:+.1%} (standard error {drift.reward_se:.1%}), that of the hidden check by {drift.hidden:+.1%}, "
        f"the gap between both by {drift.gap:+.1%} ({drift.gap_se:.1%}). "
        f"The alarm is at {reward_hack.SIGMAS:g} standard errors of both reward and gap; here {drift.sigmas:.1f}."
    )


def bound(errors: Errors, outcomes: Counter[str]) -> str:
    """What the rates say of all the check's verdicts, in one sentence; empty where a rate is unknown."""
    decided = sum(count for outcome, count in outcomes.items() if outcome not in UNDECIDED)
    seen = Rate(outcomes["CORRECT"], decided).value
    f, m = errors.false_positive_rate, errors.false_negative_rate
    if seen is None or f.value is None or m.value is None:
        return ""
    p = true_pass_rate(seen, f.value, m.value)
    right = _right(seen, f.value, m.value)
    if p is None or right is None:
        return f"It accepts {seen:.1%} of all answers; with such rates that says nothing of how many are right."
    ends = (_right(seen, f.interval()[1], m.interval()[0]), _right(seen, f.interval()[0], m.interval()[1]))
    low, high = (f"{end:.1%}" if end is not None else "unknown" for end in ends)
    hit, false, _ = after(TRIES, p, f.value, m.value)
    return (
        f"It accepts {seen:.1%} of all answers, which makes {p:.1%} right. Of accepted answers {right:.1%} are right "
        f"({low} to {high} within the intervals), however often one tries; within {TRIES} tries a right one is "
        f"accepted with probability {hit:.2f}, a wrong one with {false:.2f}."
    )


def _right(seen: float, f: float, m: float) -> float | None:
    p = true_pass_rate(seen, f, m)
    return None if p is None else right_of_accepted(p, f, m)


def _check(check: str, hidden: str, looked: Sequence[Looked], run: RunData) -> CheckErrors:
    errors = Errors()
    for one in looked:
        if one.hidden_outcome in UNDECIDED:
            errors.apart[one.hidden_outcome] += 1
        else:
            errors.add(one.outcome, one.hidden_outcome == "CORRECT")
    return CheckErrors(
        check,
        hidden,
        errors.false_positive_rate.text,
        errors.false_negative_rate.text,
        errors.apart.total(),
        bound(errors, run.verdicts.get(check, Counter())),
    )
