"""What the door is told goes to the log: one writer for all of its threads.

A transactional id has one live holder, so that a writer per call would fence the calls beside it.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack

from pipeline import records
from pipeline.errors import Fenced, NotReady
from pipeline.log.api import Log, Writer
from pipeline.topics import Names
from services.difficulty.handler import Sent


class Teller:
    """Writes each call's records in one transaction, one call after the other."""

    def __init__(self, log: Log, names: Names, transactional_id: str) -> None:
        self._log, self._names, self._id = log, names, names.own(transactional_id)
        self._lock = threading.Lock()
        self._writer: Writer | None = None

    def __call__(self, sent: list[Sent]) -> None:
        """Write and commit. `Retryable` when it has to be told again, also where another process took the id over."""
        sends = [records.encode(self._names.topic(topic), key, noun) for topic, key, noun in sent]
        with self._lock, ExitStack() as failed:
            writer, self._writer = self._writer or self._log.writer(self._id), None
            # After a failure the next call begins with a new writer: this one may be fenced, or in doubt.
            failed.callback(writer.close)
            try:
                with writer.transaction() as transaction:
                    transaction.sends.extend(sends)
            except Fenced as error:
                raise NotReady(f"another process writes observations as {self._id!r}; tell it again") from error
            self._writer = writer
            failed.pop_all()

    def close(self) -> None:
        """Give the id back."""
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
