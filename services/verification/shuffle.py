"""Verdicts dealt to other rollouts: what `make bench` trains on to show that learning comes from the verdicts.

Every verdict swaps what was found with one of the last few hundred, picked at random: as many are right as before, and
which ones says nothing of the answer. Only for benchmarks; a run file has to ask for it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from sluice.v1 import rollout_pb2

UNCHECKED = (rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, rollout_pb2.VERDICT_OUTCOME_NOT_RUN)


class Found(NamedTuple):
    """What is swapped."""

    outcome: int
    accuracy: float
    rewards: list[tuple[str, float]]


@dataclass
class Shuffle:
    """`depth`: findings to swap with. Until it is full, verdicts pass unchanged; keep it below a batch."""

    seed: int = 0
    depth: int = 64
    _held: list[Found] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def __call__(self, verdicts: list[rollout_pb2.Verdict]) -> None:
        """Swap in place; what was not checked stays as it is."""
        for verdict in verdicts:
            if verdict.outcome in UNCHECKED:
                continue
            found = Found(verdict.outcome, verdict.accuracy, [(one.name, one.value) for one in verdict.rewards])
            if len(self._held) < self.depth:
                self._held.append(found)
                continue
            place = self._rng.randrange(self.depth)
            dealt, self._held[place] = self._held[place], found
            verdict.outcome, verdict.accuracy = dealt.outcome, dealt.accuracy  # type: ignore[assignment]
            del verdict.rewards[:]
            verdict.rewards.extend(rollout_pb2.Reward(name=name, value=value) for name, value in dealt.rewards)
            verdict.evidence = "shuffled"
