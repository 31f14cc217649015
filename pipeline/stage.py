"""The one loop: the only place that polls, retries, dead-letters, commits, traces and counts.

    log --poll--> decode --nouns--> handler --outputs--> encode --one transaction with the offsets--> log
                    |                  |
                    poison             Poison: that record alone is dead-lettered
                    `--> dead-letters  Retryable: all of it again, with a bound

A service gives it a handler and one of three ways to read (`pipeline/ways.py`): batch, concurrent, follow. What they
share is here: decoding, sending with bounded retries, dead letters, waiting for a log that does not answer.

    who waits        for what                       unblocked by
    every stage      the log to answer              the log; bounded by `PATIENCE_S`, in a process that was told to
                                                    leave by `LEAVING_S`; then it ends
    batch            records, or the next tick      a producer, the clock
    concurrent       room in the engine             a finished request
    follow           records                        a producer, the clock
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from google.protobuf.message import Message

from pipeline import records
from pipeline.errors import LogUnavailable, Poison
from pipeline.life import Life
from pipeline.log.api import GroupReader, Log, Position, Record, Send, Transaction, Writer
from pipeline.metrics import Meter
from pipeline.topics import Names
from pipeline.tracing import Tracer
from sluice.v1 import control_pb2

PATIENCE_S = 600.0
"""How long a stage waits for a log that does not answer before its process ends with an error."""
LEAVING_S = 60.0
"""The same in a process that was told to leave: what it cannot commit by then, another reads again."""
TRIES = 5
"""How often a record that fails with `Retryable` is tried before it is dead-lettered."""

T = TypeVar("T")


class Output(NamedTuple):
    """A noun to write: short topic name, key, noun."""

    topic: str
    key: str
    noun: Message


class Decoded(NamedTuple):
    """A record with its noun."""

    record: Record
    noun: Message


@dataclass
class Stage:
    """What the three ways share. One per process; used by one thread."""

    service: str
    worker_id: str
    log: Log
    names: Names
    meter: Meter
    life: Life
    writer: Writer | None = None
    tracer: Tracer | None = None
    _unreachable_since: float | None = field(default=None, init=False)

    def open(self, transactional_id: str) -> Writer:
        """The stage's writer; fences an older process under the same id."""
        self.writer = self.patiently(lambda: self.log.writer(self.names.own(transactional_id)))
        return self.writer

    def poll(self, read: Callable[[], list[Record]], reason: str) -> list[Record]:
        """Read; the time in which nothing came counts as waiting for `reason`."""
        self.meter.turned()
        begun = time.monotonic()
        with self.meter.logging_cpu():
            found = self.patiently(read)
        if not found:
            self.meter.waited(reason, time.monotonic() - begun)
        return found

    def decode(self, found: Iterable[Record]) -> tuple[list[Decoded], list[tuple[Record, Poison]]]:
        """The nouns, and the records that have none."""
        good: list[Decoded] = []
        bad: list[tuple[Record, Poison]] = []
        with self.meter.logging_cpu():
            for record in found:
                try:
                    good.append(Decoded(record, records.decode(record)))
                except Poison as error:
                    bad.append((record, error))
        return good, bad

    def encode(self, outputs: Iterable[Output]) -> list[Send]:
        """Outputs as records under their full topic names, each in its rollout's trace where that is kept."""
        header = self.tracer.header if self.tracer is not None else lambda noun: ""
        with self.meter.logging_cpu():
            return [records.encode(self.names.topic(topic), key, noun, header(noun)) for topic, key, noun in outputs]

    def letter(self, record: Record, error: Exception, attempts: int) -> Output:
        """The dead letter of a record: its bytes untouched, and why."""
        reason = str(error) or type(error).__name__
        letter = control_pb2.DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=dict(record.headers),
            error=type(error).__name__,
            reason=reason[:2000],
            service=self.service,
            attempts=attempts,
            written_ms=int(time.time() * 1000),
            record_ms=record.timestamp_ms,
        )
        self.count([record], "dead_lettered")
        return Output("dead-letters", f"{record.topic}/{record.partition}/{record.offset}", letter)

    def commit(
        self, sends: Sequence[Send], offsets: dict[Position, int], reader: GroupReader | None
    ) -> list[tuple[str, int, int]]:
        """Write records and offsets in one transaction; returns where the records are. Raises `Fenced`.

        While the log does not answer, the same content is tried again: the log writes it once, also where it is in
        doubt whether an earlier try got through.
        """
        return self.patiently(lambda: self._commit_once(sends, offsets, reader))

    def _commit_once(
        self, sends: Sequence[Send], offsets: dict[Position, int], reader: GroupReader | None
    ) -> list[tuple[str, int, int]]:
        assert self.writer is not None
        begun = time.monotonic()
        with self.meter.logging_cpu(), self.writer.transaction() as transaction:
            transaction.sends.extend(sends)
            if reader is not None and offsets:
                transaction.commit_offsets(reader, offsets)
        seconds = time.monotonic() - begun
        self._count_commit(transaction, seconds)
        if self.tracer is not None:
            self.tracer.committed(transaction.sends, seconds)
        return transaction.written

    def count(self, records: Iterable[Record], result: str) -> None:
        """Records were handled, retried or dead-lettered."""
        for topic, number in Counter(record.topic for record in records).items():
            self.meter.add("sluice_stage_records_total", number, topic=self.names.short(topic), result=result)

    def expect(self, topics: Iterable[str]) -> None:
        """These (full names) will be read: from now on 0 of them are dead-lettered, so that the first one is a rise."""
        for topic in sorted(set(topics)):
            short = self.names.short(topic)
            self.meter.add("sluice_stage_records_total", 0.0, topic=short, result="dead_lettered")

    def patiently(self, action: Callable[[], T]) -> T:
        """Do it, again and again while the log does not answer, for `PATIENCE_S` at most, or `LEAVING_S`."""
        pause = 0.05
        while True:
            begun = time.monotonic()
            try:
                result = action()
            except LogUnavailable:
                self._wait_for_log(begun, pause)
                pause = min(pause * 2, 2.0)
                continue
            self._unreachable_since = None
            return result

    def _wait_for_log(self, begun: float, pause: float) -> None:
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or begun
        self.meter.add("sluice_stage_transactions_total", result="log_unreachable")
        since = self._unreachable_since
        over = now - since > PATIENCE_S or now - max(since, self.life.left_at) > LEAVING_S
        if self.life.stopped or over:
            raise
        self.life.sleep(pause)
        self.meter.waited("log_unreachable", time.monotonic() - begun)

    @property
    def log_answers(self) -> bool:
        """False while the log is being waited for."""
        return self._unreachable_since is None

    def _count_commit(self, transaction: Transaction, seconds: float) -> None:
        self.meter.turned()
        self.meter.progress()
        self.meter.add("sluice_stage_transactions_total", result="committed")
        self.meter.observe("sluice_stage_transaction_seconds", seconds)
        totals: dict[str, list[int]] = {}
        for send in transaction.sends:
            total = totals.setdefault(self.names.short(send.topic), [0, 0])
            total[0] += 1
            total[1] += len(send.value)
        for topic, (number, size) in totals.items():
            self.meter.add("sluice_stage_sent_total", number, topic=topic)
            self.meter.add("sluice_stage_sent_bytes_total", size, topic=topic)


def end_of(error: Exception) -> str:
    """What a person reads when a stage ends with this error."""
    return f"{type(error).__name__}: {error}"
