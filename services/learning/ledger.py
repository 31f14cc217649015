"""What is still to be said of rollouts that ended: drops at once, outcomes with the next checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.learning.ends import End
from sluice.v1 import training_pb2


@dataclass
class Ledger:
    """Stamps ends with the (epoch, step) at, or after, which they came. `dropped` counts by reason since the start."""

    epoch: int = 0
    step: int = 0
    drops: list[training_pb2.Drop] = field(default_factory=list)
    outcomes: list[training_pb2.Outcome] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    trained: int = 0

    def enter(self, ends: Iterable[End]) -> None:
        """These ended now."""
        for end in ends:
            self.outcomes.append(end.outcome(self.epoch, self.step))
            if end.trained:
                self.trained += 1
            else:
                self.drops.append(end.drop())
                self.dropped[end.reason] += 1

    def take_drops(self) -> list[training_pb2.Drop]:
        """Drops that nobody was told of yet."""
        found, self.drops = self.drops, []
        return found

    def notice(self) -> list[training_pb2.DropNotice]:
        """A notice of the drops that nobody was told of yet; empty when there are none."""
        drops = self.take_drops()
        return [training_pb2.DropNotice(epoch=self.epoch, after_step=self.step, drops=drops)] if drops else []

    def named(self) -> None:
        """A checkpoint holds the outcomes now."""
        self.outcomes = []
