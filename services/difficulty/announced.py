"""Which versions' rollouts may be observed, as the log says it.

The newest: what the newest manifest announces, for nothing samples from a version before it is announced. The oldest:
the version of the oldest step that the log still holds, where retention has taken some; 0 while it has taken none. A
log on which no weights were ever announced (another trainer uses this service alone) accepts every version.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipeline import records
from pipeline.log.api import Log, read_batches
from pipeline.topics import Names
from services.difficulty.seen import Versions
from sluice.v1 import training_pb2, weights_pb2

LOOK_EVERY_S = 60.0


@dataclass
class Announced:
    """Looked up when a version is newer than any known, and otherwise now and then. Used under the handler's lock."""

    log: Log
    names: Names
    _known: Versions | None = field(default=None, init=False)
    _looked_at: float = field(default=float("-inf"), init=False)
    _read: dict[int, int] = field(default_factory=dict, init=False)

    def __call__(self, highest: int) -> Versions | None:
        """What may be observed; `highest` is a version that somebody claims."""
        newest = self._known.newest if self._known else 0
        if highest > newest or time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._known, self._looked_at = self._look(), time.monotonic()
        return self._known

    def _look(self) -> Versions | None:
        topic, newest = self.names.topic("weights-manifest"), self._known.newest if self._known else 0
        ends = {partition: end for partition, (_, end) in self.log.bounds(topic).items()}
        for batch in read_batches(self.log, topic, self._read):
            for record in batch:
                newest = max(newest, records.decode_as(weights_pb2.WeightManifest, record).version)
        self._read = ends
        return Versions(self._oldest(), newest) if newest else None

    def _oldest(self) -> int:
        topic = self.names.topic("steps")
        if not any(first for first, _ in self.log.bounds(topic).values()):
            return 0
        nouns = (records.decode(record) for batch in read_batches(self.log, topic) for record in batch)
        return next((noun.version for noun in nouns if isinstance(noun, training_pb2.TrainStep)), 0)
