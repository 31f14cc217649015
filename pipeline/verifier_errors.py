"""How often a check errs, and what that bounds: false positives and false negatives against a truth.

    f = P(accepted | wrong) = false positives / (false positives + true negatives)
    m = P(rejected | right) = false negatives / (false negatives + true positives)

Source: "Inference Scaling FLaws" (arXiv:2411.17501): with p the share of right answers, completeness c = 1 - m and
soundness s = 1 - f, an answer is rejected with probability beta = (1 - c) p + s (1 - p); of the accepted ones
c p / (c p + (1 - s)(1 - p)) are right, however often one tries; within K tries a right one is accepted with probability
c p (1 - beta^K) / (1 - beta), a wrong one with (1 - s)(1 - p)(1 - beta^K) / (1 - beta), none with beta^K. Intervals are
Wilson's (1927).
Odd cases: a rate without a single answer to judge is unknown, and its interval is everything, (0, 1). What a check did
not decide (INFRA_ERROR, TIMEOUT, NOT_RUN) is counted apart and in no rate.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from statistics import NormalDist

LEVEL = 0.95
UNDECIDED = ("INFRA_ERROR", "TIMEOUT", "NOT_RUN", "UNSPECIFIED")
"""Outcomes that say nothing of the answer that could be wrong."""
BESIDE = ("true_positive", "false_positive", "true_negative", "false_negative", "apart")
"""What a verdict can be beside the truth."""


@dataclass(frozen=True)
class Rate:
    """`count` of `of`, both numbers of answers."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def text(self) -> str:
        """For people.

        >>> Rate(5, 100).text, Rate(0, 0).text
        ('5.0% (2.2% to 11.2%), 5 of 100', 'unknown, 0 of 0')
        """
        low, high = self.interval()
        known = "unknown" if self.value is None else f"{self.value:.1%} ({low:.1%} to {high:.1%})"
        return f"{known}, {self.count} of {self.of}"

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Wilson's interval of the share.

        >>> [round(end, 4) for end in Rate(45, 60).interval()], Rate(0, 0).interval()
        ([0.6277, 0.8422], (0.0, 1.0))
        """
        if not self.of:
            return 0.0, 1.0
        z = NormalDist().inv_cdf((1 + level) / 2)
        share, n = self.count / self.of, self.of
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return (0.0 if not self.count else middle - half), (1.0 if self.count == self.of else middle + half)


@dataclass
class Errors:
    """One check against a truth. `apart`: what was not decided, by outcome."""

    true_positives: int = 0
    false_positives: int = 0
    true_negatives: int = 0
    false_negatives: int = 0
    apart: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, right: bool) -> None:
        """The check said `outcome` (a verdict outcome's short name) of an answer that is right, or not."""
        found = compared(outcome, right)
        if found == "apart":
            self.apart[outcome] += 1
        else:
            setattr(self, f"{found}s", getattr(self, f"{found}s") + 1)

    @property
    def false_positive_rate(self) -> Rate:
        """Wrong answers that were accepted, of all wrong ones."""
        return Rate(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def false_negative_rate(self) -> Rate:
        """Right answers that were not accepted, of all right ones."""
        return Rate(self.false_negatives, self.false_negatives + self.true_positives)

    @property
    def decided(self) -> int:
        """Answers that both the check and the truth decided."""
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives

    @property
    def accepted(self) -> Rate:
        """Accepted answers: the pass rate that one sees."""
        return Rate(self.true_positives + self.false_positives, self.decided)


def compared(outcome: str, right: bool) -> str:
    """What an outcome is beside the truth; PARTIAL, UNPARSABLE and VIOLATION are rejections.

    >>> compared("CORRECT", False), compared("PARTIAL", True), compared("WRONG", False), compared("TIMEOUT", True)
    ('false_positive', 'false_negative', 'true_negative', 'apart')
    """
    if outcome in UNDECIDED:
        return "apart"
    accepted = outcome == "CORRECT"
    return f"{'true' if accepted == right else 'false'}_{'positive' if accepted else 'negative'}"


def second_look(outcome: str, hidden: str) -> str:
    """What a verdict's outcome is beside what the stronger check said; "apart" when either decided nothing.

    >>> second_look("CORRECT", "WRONG"), second_look("CORRECT", "TIMEOUT"), second_look("WRONG", "CORRECT")
    ('false_positive', 'apart', 'false_negative')
    """
    return "apart" if hidden in UNDECIDED else compared(outcome, hidden == "CORRECT")


def apparent(p: float, f: float, m: float) -> float:
    """The pass rate one sees, 1 - beta, where a share p is right.

    >>> round(apparent(0.3, f=0.05, m=0.0), 4)
    0.335
    """
    return (1 - m) * p + f * (1 - p)


def true_pass_rate(seen: float, f: float, m: float) -> float | None:
    """The p of which `seen` is the apparent pass rate, within [0, 1]; None of a check that is no better than a coin.

    >>> round(true_pass_rate(0.335, f=0.05, m=0.0), 4), true_pass_rate(0.5, f=0.5, m=0.5)
    (0.3, None)
    """
    return min(1.0, max(0.0, (seen - f) / (1 - m - f))) if 1 - m - f > 1e-9 else None


def right_of_accepted(p: float, f: float, m: float) -> float | None:
    """Share of right answers among accepted ones; None when nothing is ever accepted.

    >>> round(right_of_accepted(0.3, f=0.05, m=0.0), 5)
    0.89552
    """
    return (1 - m) * p / apparent(p, f, m) if apparent(p, f, m) > 0 else None


def after(tries: int, p: float, f: float, m: float) -> tuple[float, float, float]:
    """(a right answer is accepted, a wrong one is, none is) within so many tries: probabilities that sum to 1.

    >>> [round(one, 5) for one in after(10, 0.3, f=0.05, m=0.0)]
    [0.88038, 0.10271, 0.01691]
    """
    accepted = apparent(p, f, m)
    none = (1 - accepted) ** tries
    right = right_of_accepted(p, f, m)
    return (0.0, 0.0, 1.0) if right is None else (right * (1 - none), (1 - right) * (1 - none), none)
