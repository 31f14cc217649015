"""Is what is believed true? What was predicted at issue against what came back.

A request carries the belief at its issue; its verdicts say what came of it. By bins of the predicted pass rate: how
many outcomes, what was predicted and what was observed on the average. Their squared distance is the Brier score

    brier = mean over outcomes of (predicted - accuracy) ** 2

and the expected share of informative groups at issue (both right and wrong answers, p^n and (1-p)^n taken away, over
the belief's mean) stands beside the share that came back so. For people only: kept in memory, since the start of the
process, and no decision is made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice.v1 import prompt_pb2, rollout_pb2

BINS = 10
OPEN_GROUPS = 65_536
"""Requests whose outcomes are waited for; the oldest is forgotten first."""


@dataclass
class Issued:
    """A request whose outcomes come back: the belief, its size, and the lowest and highest accuracy so far."""

    mean: float
    n: int
    seen: int = 0
    low: float = 1.0
    high: float = 0.0


@dataclass
class Calibration:
    """Counts by bin of the predicted pass rate."""

    outcomes_B: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    predicted_B: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    observed_B: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    squares: float = 0.0
    expected_informative: float = 0.0
    groups: int = 0
    informative: int = 0
    open: dict[str, Issued] = field(default_factory=dict)

    def issued(self, requests: Sequence[prompt_pb2.RolloutRequest]) -> None:
        """Remember what was believed."""
        for request in requests:
            self.open[request.request_id] = Issued(request.belief.mean, request.n)
        while len(self.open) > OPEN_GROUPS:
            del self.open[next(iter(self.open))]

    def add(self, verdicts: Sequence[rollout_pb2.Verdict], reasons: Sequence[str]) -> None:
        """Count outcomes; those with a reason were not seen by the posterior and are left out."""
        if not self.open:
            return
        for verdict, reason in zip(verdicts, reasons, strict=True):
            known = None if reason else self.open.get(verdict.key.request_id)
            if known is not None:
                self._count(verdict.key.request_id, known, verdict.accuracy)

    def _count(self, request_id: str, known: Issued, accuracy: float) -> None:
        place = min(int(known.mean * BINS), BINS - 1)
        self.outcomes_B[place] += 1
        self.predicted_B[place] += known.mean
        self.observed_B[place] += accuracy
        self.squares += (known.mean - accuracy) ** 2
        known.seen, known.low, known.high = known.seen + 1, min(known.low, accuracy), max(known.high, accuracy)
        if known.seen == known.n:
            self.groups += 1
            self.informative += known.high > known.low
            self.expected_informative += 1 - known.mean**known.n - (1 - known.mean) ** known.n
            del self.open[request_id]

    def clear(self) -> None:
        """The process that knew what was believed is gone."""
        self.open.clear()

    def numbers(self) -> dict[str, float]:
        """Brier score, calibration error, and both shares of informative groups; empty before any outcome."""
        total = self.outcomes_B.sum()
        found = {}
        if total:
            gap_B = np.abs(self.predicted_B - self.observed_B)
            found = {"brier": self.squares / total, "calibration_error": float(gap_B.sum() / total)}
            for place in np.flatnonzero(self.outcomes_B).tolist():
                count = self.outcomes_B[place]
                found[f"predicted_{place}"] = float(self.predicted_B[place] / count)
                found[f"observed_{place}"] = float(self.observed_B[place] / count)
        if self.groups:
            found["informative_expected"] = self.expected_informative / self.groups
            found["informative_observed"] = self.informative / self.groups
        return found
