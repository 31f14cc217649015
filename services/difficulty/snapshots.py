"""When the local snapshot is written, and what is read beside it at a start.

Written by the stage's thread between two calls: every `EVERY_S` seconds, and no more than 2 % of the time. A process
that was fenced without knowing it could name records of its successor as covered, so the snapshot is put in its place
only after a commit of the gate's record under the stage's own transactional id went through.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import records
from pipeline.errors import NotReady
from pipeline.log.api import read_batches
from pipeline.serve import Context
from pipeline.stage import Output
from services.difficulty import snapshot
from services.difficulty.handler import Handler
from services.difficulty.scheduler import GATE_KEY
from sluice.v1 import difficulty_pb2, training_pb2

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
        self._asked, self._done = threading.Event(), threading.Event()
        self._newest: snapshot.Written | None = None

    def restore(self) -> snapshot.Found | None:
        """The snapshot where it can be used, then every newer record of the posterior topic."""
        log, topic, scheduler = self.context.log, self.context.names.topic("posterior"), self.handler.scheduler
        ends = {partition: end for partition, (_, end) in log.bounds(topic).items()}
        found = snapshot.read(self.path, scheduler, ends)
        newer = (
            records.decode(r) for batch in read_batches(log, topic, found and found.covers) for r in batch if r.value
        )
        if found is None:
            scheduler.restore(newer)
        else:
            scheduler.replay(newer)
        return found

    def tick(self, read_up_to: Callable[[], snapshot.Offsets]) -> None:
        """Write one when it is time, or when somebody asked."""
        if not self._asked.is_set() and time.monotonic() < self._due:
            return
        begun = time.monotonic()
        with self.handler.lock:
            self._newest = self._write(read_up_to())
        self._due = time.monotonic() + max(EVERY_S, (time.monotonic() - begun) / COST)
        self._asked.clear()
        self._done.set()

    def _write(self, prompts: snapshot.Offsets) -> snapshot.Written:
        log, topic, scheduler = self.context.log, self.context.names.topic("posterior"), self.handler.scheduler
        scheduler.committed()
        covers = {partition: end for partition, (_, end) in log.bounds(topic).items()}
        writing = snapshot.write(self.path, scheduler, covers, prompts)
        written = next(writing)
        stage = self.context.stage
        stage.commit(stage.encode([Output("posterior", GATE_KEY, scheduler.gate_record())]), {}, None)
        next(writing, None)
        return written

    def ask(self) -> difficulty_pb2.SnapshotResponse:
        """Have one written now, and wait. Raises `NotReady` when the stage does not come to it in time."""
        self._done.clear()
        self._asked.set()
        if not self._done.wait(ASKED_S) or self._newest is None:
            raise NotReady(f"no snapshot was written within {ASKED_S:.0f} seconds; try again")
        topic = self.context.names.topic("posterior")
        covers = [
            training_pb2.Offset(topic=topic, partition=partition, offset=offset)
            for partition, offset in sorted(self._newest.covers.items())
        ]
        newest = self._newest
        return difficulty_pb2.SnapshotResponse(
            prompts=newest.prompts, size_bytes=newest.size_bytes, sha256=newest.sha256, covers=covers
        )
