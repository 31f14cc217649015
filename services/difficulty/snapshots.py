"""When the local snapshot is written, and what is read beside it at a start.

Written by the stage's thread between two calls: every `EVERY_S` seconds, and no more than 2 % of the time. That thread
alone changes the state and writes its topic, so one snapshot follows the other and nothing is taken back in between.
The door's threads read the state: they wait for a copy in memory, and neither for the disk nor for the log.

A process that was fenced without knowing it could name records of its successor as covered, so the snapshot is put in
its place only after a commit of the gate's record under the stage's own transactional id went through.

A disk that takes no snapshot costs a longer restart and nothing else: the run goes on, and the next try comes in time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pipeline import records
from pipeline.data.prompt import GATE_KEY
from pipeline.errors import NotReady
from pipeline.log.api import read_batches
from pipeline.serve import Context
from pipeline.stage import Output
from services.difficulty import snapshot
from services.difficulty.handler import Handler
from sluice.v1 import difficulty_pb2, training_pb2

log = logging.getLogger(__name__)

EVERY_S = 60.0
COST = 0.02
"""Share of the time that snapshots may take."""
ASKED_S = 60.0
"""How long a caller of `Snapshot` waits."""


class Snapshots:
    """The snapshot of one service."""

    def __init__(self, path: Path, context: Context, handler: Handler) -> None:
        self.path, self.context, self.handler = path, context, handler
        self._due = time.monotonic() + EVERY_S
        self._askers = deque[threading.Event]()
        self._newest: snapshot.Written | None = None
        self.failed = ""
        """Why the latest try came to nothing; empty when it did not."""
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """What writers left that were killed, or whose disk was full."""
        for unfinished in snapshot.unfinished(self.path):
            unfinished.unlink(missing_ok=True)

    def restore(self) -> snapshot.Found | None:
        """The snapshot where it can be used, then every newer record of the posterior topic."""
        source, topic, scheduler = self.context.log, self.context.names.topic("posterior"), self.handler.scheduler
        ends = {partition: end for partition, (_, end) in source.bounds(topic).items()}
        found = snapshot.read(self.path, scheduler, ends)
        newer = (
            records.decode(r) for batch in read_batches(source, topic, found and found.covers) for r in batch if r.value
        )
        if found is None:
            scheduler.restore(newer)
        else:
            scheduler.replay(newer)
        return found

    def tick(self, read_up_to: Callable[[], snapshot.Offsets]) -> None:
        """Write one when it is time, or when somebody asked."""
        # Who asks from now on waits for the next one: this one may lack what happened before the question.
        begun, askers = time.monotonic(), len(self._askers)
        if not askers and begun < self._due:
            return
        self._try(read_up_to())
        self._due = time.monotonic() + max(EVERY_S, (time.monotonic() - begun) / COST)
        for _ in range(askers):
            self._askers.popleft().set()

    def _try(self, prompts: snapshot.Offsets) -> None:
        """Write one. What the disk refuses is no fault of the records that are being handled."""
        try:
            self._newest, said = self.write(prompts), ""
        except OSError as error:
            said = f"{self.path.name!r} cannot be written ({error.strerror or error})"
            self._remove_unfinished()
        if said and not self.failed:
            log.warning("the snapshot %s: a restart will take longer; tried again every %.0f s", said, EVERY_S)
        self.failed = said

    def write(self, prompts: snapshot.Offsets) -> snapshot.Written:
        """Write one now: by the stage's thread only. `prompts`: next offsets of the prompts topic."""
        source, topic, scheduler = self.context.log, self.context.names.topic("posterior"), self.handler.scheduler
        covers = {partition: end for partition, (_, end) in source.bounds(topic).items()}
        with self.handler.lock:
            scheduler.committed()
            copied = snapshot.take(scheduler, covers, prompts)
        writing = snapshot.write(self.path, copied)
        written = next(writing)
        stage = self.context.stage
        stage.commit(stage.encode([Output("posterior", GATE_KEY, copied.gate)]), {}, None)
        next(writing, None)
        return written

    def ask(self) -> difficulty_pb2.SnapshotResponse:
        """Have one written now, and wait. Raises `NotReady` when the stage does not come to it, or cannot write."""
        done = threading.Event()
        self._askers.append(done)
        if not done.wait(ASKED_S):
            raise NotReady(f"no snapshot was written within {ASKED_S:.0f} seconds; try again")
        if self.failed or self._newest is None:
            raise NotReady(f"the snapshot {self.failed}; accepted: a disk with room that this service may write to")
        topic = self.context.names.topic("posterior")
        covers = [
            training_pb2.Offset(topic=topic, partition=partition, offset=offset)
            for partition, offset in sorted(self._newest.covers.items())
        ]
        newest = self._newest
        return difficulty_pb2.SnapshotResponse(
            prompts=newest.prompts, size_bytes=newest.size_bytes, sha256=newest.sha256, covers=covers
        )
