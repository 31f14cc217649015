"""Is what is believed true? What was predicted at issue against what came back.

A request carries the belief at its issue; its verdicts say what came of it. What is told at the door has no request: it
is held against the belief just before it is applied. By bins of the predicted pass rate: how many outcomes, what was
predicted and what was observed on the average. Their squared distance is the Brier score

    brier = mean over outcomes of (predicted - accuracy) ** 2

and the expected share of informative groups at issue (both right and wrong answers, p^n and (1-p)^n taken away, over
the belief's mean) stands beside the share that came back so. A group is judged by those of its rollouts whose check
found something out; one without any is left out. For people only: kept in memory, since the start of the process, and
no decision is made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.difficulty.store import Store
from sluice.v1 import prompt_pb2, rollout_pb2

BINS = 10
OPEN_GROUPS = 65_536
"""Requests whose outcomes are waited for; the oldest is forgotten first."""
LOOKED = 32
"""Verdicts told at the door that one call compares at most: to compare all 256 would cost a tenth of observing."""
Door = list[tuple[int, float]]
"""(place of a verdict that was told at the door, mean that was believed of its prompt)."""


def at_the_door(store: Store, verdicts: Sequence[rollout_pb2.Verdict]) -> Door:
    """What is believed of the prompts of verdicts without a request: of all, or of `LOOKED` evenly among many.

    Unknown prompts are left out.
    """
    places = [place for place, verdict in enumerate(verdicts) if not verdict.HasField("key")]
    if not places:
        return []
    places = places[:: -(-len(places) // LOOKED)]
    rows_N = store.rows.find([verdicts[place].prompt_id for place in places])
    known_N = np.flatnonzero(rows_N >= 0)
    mean_N = store.view(rows_N[known_N]).all().mean_P
    return [(places[n], mean) for n, mean in zip(known_N.tolist(), mean_N.tolist(), strict=True)]


@dataclass
class Issued:
    """A request that comes back: the belief, its size, verdicts so far, those that say something, their extremes."""

    mean: float
    n: int
    back: int = 0
    told: int = 0
    low: float = 1.0
    high: float = 0.0

    def add(self, accuracy: float) -> None:
        """One more that says something."""
        self.told, self.low, self.high = self.told + 1, min(self.low, accuracy), max(self.high, accuracy)


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

    def add(self, verdicts: Sequence[rollout_pb2.Verdict], reasons: Sequence[str], door: Door) -> None:
        """Count outcomes; those with a reason were not seen by the posterior and are left out."""
        found = [(mean, verdicts[place].accuracy) for place, mean in door if not reasons[place]]
        for verdict, reason in zip(verdicts, reasons, strict=True) if self.open else ():
            known = self.open.get(verdict.key.request_id)
            if known is None:
                continue
            if not reason:
                found.append((known.mean, verdict.accuracy))
                known.add(verdict.accuracy)
            self._back(verdict.key.request_id, known)
        if found:
            self._count(*np.array(found).T)

    def _count(self, mean_N: np.ndarray, accuracy_N: np.ndarray) -> None:
        place_N = np.minimum((mean_N * BINS).astype(int), BINS - 1)
        self.outcomes_B += np.bincount(place_N, minlength=BINS)
        self.predicted_B += np.bincount(place_N, mean_N, BINS)
        self.observed_B += np.bincount(place_N, accuracy_N, BINS)
        self.squares += float(((mean_N - accuracy_N) ** 2).sum())

    def _back(self, request_id: str, known: Issued) -> None:
        known.back += 1
        if known.back < known.n:
            return
        del self.open[request_id]
        if known.told:
            self.groups += 1
            self.informative += known.high > known.low
            self.expected_informative += 1 - known.mean**known.told - (1 - known.mean) ** known.told

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
