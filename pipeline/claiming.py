"""A log whose records may be of any size: what is over 900 kB goes to the run's store, and a claim on it to the log.

Writers and readers of the wrapped log see the payload; a header says that the value on the log is a claim. A claim on
anything outside the store, or on a payload that is not what was claimed, stays unresolved and is poison to whoever
decodes it. While the store does not answer, readers wait; past `PATIENCE_S` the process ends, and its successor reads
the record again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pipeline import claims
from pipeline.errors import Poison, Retryable, SluiceError
from pipeline.log.api import (
    MAX_RECORD_BYTES,
    Follower,
    GroupReader,
    Log,
    Position,
    Record,
    Send,
    TopicConfig,
    Transaction,
    Writer,
)
from sluice.v1 import prompt_pb2

log = logging.getLogger(__name__)

HEADER = "claim"
PATIENCE_S = 60.0


@dataclass
class ClaimingLog:
    """`inner`, with payloads over `MAX_RECORD_BYTES` under the fsspec URL `store`."""

    inner: Log
    store: str

    def create(self, topics: Sequence[TopicConfig]) -> None:
        """See `Log`."""
        self.inner.create(topics)

    def partitions(self, topic: str) -> int:
        """See `Log`."""
        return self.inner.partitions(topic)

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """See `Log`."""
        return self.inner.bounds(topic)

    def writer(self, transactional_id: str) -> Writer:
        """See `Log`; what is too large is put into the store before the commit."""
        return ClaimingWriter(self.inner.writer(transactional_id), self.store)

    def group(self, group: str, topics: Sequence[str], member: str, lease_s: float = 10.0) -> GroupReader:
        """See `Log`; claims are resolved."""
        return Resolving(self.inner.group(group, topics, member, lease_s), self.store)  # type: ignore[return-value]

    def follow(self, offsets: Mapping[Position, int]) -> Follower:
        """See `Log`; claims are resolved."""
        return Resolving(self.inner.follow(offsets), self.store)  # type: ignore[return-value]

    def backlog(self, group: str, topic: str) -> int:
        """See `Log`."""
        return self.inner.backlog(group, topic)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """See `Log`."""
        return self.inner.committed(group, topic)

    def trim(self, topic: str, partition: int, before: int) -> None:
        """See `Log`."""
        self.inner.trim(topic, partition, before)

    def topics(self, prefix: str = "") -> list[str]:
        """See `Log`."""
        return self.inner.topics(prefix)

    def expire(self) -> None:
        """See `Log`."""
        self.inner.expire()

    def close(self) -> None:
        """See `Log`."""
        self.inner.close()


@dataclass
class ClaimingWriter:
    """A writer that swaps large values for claims."""

    inner: Writer
    store: str

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See `Writer`."""
        with self.inner.transaction() as transaction:
            yield transaction
            transaction.sends[:] = [self._claimed(send) for send in transaction.sends]
            if isinstance(transaction.reader, Resolving):  # the inner log commits for its own readers
                transaction.reader = transaction.reader.inner  # type: ignore[assignment]

    def close(self) -> None:
        """See `Writer`."""
        self.inner.close()

    def _claimed(self, send: Send) -> Send:
        if len(send.value) <= MAX_RECORD_BYTES:
            return send
        claim = claims.put(self.store, send.value)
        return send._replace(value=claim.SerializeToString(), headers=(*send.headers, (HEADER, b"1")))


class Resolving:
    """A reader whose claims are swapped for their payloads; everything else is the inner reader's."""

    def __init__(self, inner: GroupReader | Follower, store: str) -> None:
        self.inner, self.store = inner, store

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """See `GroupReader` and `Follower`."""
        return [self._resolved(record) for record in self.inner.poll(timeout, max_records)]

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def _resolved(self, record: Record) -> Record:
        if record.header(HEADER) is None:
            return record
        try:
            payload = self._payload(record)
        except Poison as error:
            log.error("%s[%d]@%d: %s", record.topic, record.partition, record.offset, error)
            return record
        headers = tuple(pair for pair in record.headers if pair[0] != HEADER)
        return record._replace(value=payload, headers=headers)

    def _payload(self, record: Record) -> bytes:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return claims.get(prompt_pb2.Claim.FromString(record.value), self.store)
            except DecodeError as error:
                raise Poison(f"the claim does not decode: {error}") from error
            except Retryable as error:
                # Not `LogUnavailable`: the reader has moved on, and a caller that polled again would skip the record.
                if time.monotonic() > deadline:
                    raise SluiceError(f"gave up after {PATIENCE_S:.0f} s: {error}") from error
                time.sleep(0.5)
