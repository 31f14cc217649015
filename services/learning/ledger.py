"""What is still to be said of rollouts that ended: drops at once, outcomes with the next checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.learning.ends import End
from sluice.v1 import training_pb2


@dataclass
class Ledger:
    """Stamps ends with (epoch, step). `dropped`, by reason and what was believed, and `trained`: since the start.

    A drop is stamped when it is told, with the step that tells it: so a rewind takes back both or neither.
    """

    epoch: int = 0
    step: int = 0
    outcomes: list[training_pb2.Outcome] = field(default_factory=list)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    trained: int = 0
    noticed: list[training_pb2.Drop] = field(default_factory=list)
    """Told in notices since the last step: a rewind to that step takes their places back, so they are told again."""
    _untold: list[End] = field(default_factory=list)

    def enter(self, ends: Iterable[End]) -> None:
        """These ended now."""
        for end in ends:
            if end.trained:
                self.trained += 1
                self.outcomes.append(end.outcome(self.epoch, self.step))
            else:
                self.dropped[end.reason, end.believed] += 1
                self._untold.append(end)

    def begin(self, epoch: int, step: int, noticed: Iterable[training_pb2.Drop] = ()) -> None:
        """An epoch begins at this step; these were noticed after it and have ended for good."""
        self.epoch, self.step, self.noticed = epoch, step, list(noticed)

    @property
    def untold(self) -> int:
        """Drops that nobody was told of yet."""
        return len(self._untold)

    def tell(self) -> list[training_pb2.Drop]:
        """Those drops, for the record of the step that was just made."""
        self.noticed = []
        return self._tell()

    def notice(self) -> training_pb2.DropNotice:
        """Those drops, between two steps."""
        drops = self._tell()
        self.noticed += drops
        return training_pb2.DropNotice(epoch=self.epoch, after_step=self.step, drops=drops)

    def named(self, serial: int) -> list[training_pb2.Outcome]:
        """Hand the outcomes over to the checkpoint of this serial."""
        outcomes, self.outcomes = self.outcomes, []
        for outcome in outcomes:
            outcome.checkpoint_serial = serial
        return outcomes

    def _tell(self) -> list[training_pb2.Drop]:
        self.outcomes += [end.outcome(self.epoch, self.step) for end in self._untold]
        told, self._untold = self._untold, []
        return [end.drop() for end in told]
