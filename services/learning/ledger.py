"""What is still to be said of rollouts that ended: drops at once, outcomes with the next checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.learning.ends import End
from sluice.v1 import training_pb2


@dataclass
class Ledger:
    """Stamps ends with (epoch, step). `dropped`, `trained`: counts since the start.

    A drop is stamped when it is told, with the step that tells it: so a rewind takes back both or neither.
    """

    epoch: int = 0
    step: int = 0
    outcomes: list[training_pb2.Outcome] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    trained: int = 0
    _untold: list[End] = field(default_factory=list)

    def enter(self, ends: Iterable[End]) -> None:
        """These ended now."""
        for end in ends:
            if end.trained:
                self.trained += 1
                self.outcomes.append(end.outcome(self.epoch, self.step))
            else:
                self.dropped[end.reason] += 1
                self._untold.append(end)

    @property
    def untold(self) -> int:
        """Drops that nobody was told of yet."""
        return len(self._untold)

    def tell(self) -> list[training_pb2.Drop]:
        """Those drops, for the record of the present step."""
        self.outcomes += [end.outcome(self.epoch, self.step) for end in self._untold]
        told, self._untold = self._untold, []
        return [end.drop() for end in told]

    def notice(self) -> list[training_pb2.DropNotice]:
        """A notice of those drops; empty when there are none."""
        drops = self.tell()
        return [training_pb2.DropNotice(epoch=self.epoch, after_step=self.step, drops=drops)] if drops else []

    def named(self) -> None:
        """A checkpoint holds the outcomes now."""
        self.outcomes = []
