"""What a log is.

A topic has partitions; a partition is a sequence of records with rising offsets (gaps are allowed). Records of one key
go to one partition. What a transaction sends, and the offsets it commits, become visible together or not at all.

Three roles, each used by one thread at a time:

- `Writer`: sends records in transactions. A transactional id has one live holder; opening it again fences the older
  one, whose next commit raises `Fenced`.
- `GroupReader`: a member of a consumer group. Partitions are shared among live members; a dead member's are taken over
  when its lease (session) ends. Offsets are committed through a `Writer`'s transaction, which fails with `Fenced`
  when the partition has gone to another member: the caller aborts and polls again.
- `Follower`: reads the partitions and offsets that its caller names, for ever. An offset below retention raises `Lost`.

Every call that can wait takes a deadline in seconds. A log that does not answer raises `LogUnavailable`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]
Position = tuple[str, int]
"""(topic, partition)."""

MAX_RECORD_BYTES = 900_000
"""Largest value that a record may carry; more becomes a claim. Stock Kafka brokers take 1 MiB a batch."""


class Record(NamedTuple):
    """One record as read. `offset` is its place in (topic, partition); `timestamp_ms` is when it was written."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Headers
    timestamp_ms: int

    def header(self, name: str) -> bytes | None:
        """The first header of that name."""
        for key, value in self.headers:  # thousands a second come here: a generator would cost twice as much
            if key == name:
                return value
        return None


class Send(NamedTuple):
    """One record to write. The partition follows from the key unless it is given."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """A topic to create.

    `compacted`: only the newest record of a key is sure to be kept; an empty value is a tombstone.
    `retention_s`: records older than this may go; None keeps them until they are trimmed. `replicas`: brokers that keep
    a copy; 0 is the cluster's default, and a file has no more than one.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_s: float | None = None
    replicas: int = 0


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: the same on both logs and in every process.

    >>> partition_of(b"prompt-1", 4), partition_of(b"prompt-2", 4)
    (1, 3)
    """
    return zlib.crc32(key) % partitions


@dataclass
class Transaction:
    """What will be written together. Filled in memory by the caller, committed on a clean exit of its `with` block."""

    sends: list[Send] = field(default_factory=list)
    offsets: dict[Position, int] = field(default_factory=dict)
    reader: GroupReader | None = None
    written: list[tuple[str, int, int]] = field(default_factory=list)
    """After the commit: (topic, partition, offset) of every send, in order."""

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None) -> None:
        """Add one record."""
        self.sends.append(Send(topic, key, value, headers, partition))

    def commit_offsets(self, reader: GroupReader, offsets: Mapping[Position, int]) -> None:
        """Commit, with the records, that `reader`'s group has consumed everything below these offsets."""
        self.reader = reader
        self.offsets.update(offsets)


class Writer(Protocol):
    """Sends records in transactions under one transactional id."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """`with writer.transaction() as txn:` commits at the end of the block; an exception inside aborts it.

        Raises `Fenced` when a newer writer holds the id, or a committed offset's partition belongs to another member;
        `Poison` when a value is over `MAX_RECORD_BYTES`; `UserError` for an unknown topic; `LogUnavailable`.
        """
        ...

    def close(self) -> None:
        """Give the id back."""
        ...


class GroupReader(Protocol):
    """A member of a consumer group."""

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """Records of the partitions this member holds, in offset order per partition; empty after `timeout` seconds.

        Renews the member's lease, joins and rebalances as needed. With `max_records=0` it only does that, and returns
        nothing: a member that is full stays a member.
        """
        ...

    def assigned(self) -> frozenset[Position]:
        """What this member holds now."""
        ...

    def rewind(self) -> None:
        """After an aborted transaction: read again from the group's committed offsets."""
        ...

    def close(self) -> None:
        """Leave the group at once, so that others take over without waiting for the lease."""
        ...


class Follower(Protocol):
    """Reads named partitions from named offsets."""

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """The next records, in offset order per partition; empty after `timeout` seconds. Raises `Lost`."""
        ...

    def positions(self) -> dict[Position, int]:
        """Next offset to read of every partition."""
        ...

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Read on from other offsets."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class Log(Protocol):
    """A durable log. Cheap to open in every process; safe to share between threads."""

    def create(self, topics: Sequence[TopicConfig]) -> None:
        """Create what is missing. Raises `UserError` when a topic exists with another number of partitions."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions it has. Raises `UserError` for an unknown topic."""
        ...

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """For each partition: (first offset still held, next offset that a committed record will get at least)."""
        ...

    def writer(self, transactional_id: str) -> Writer:
        """A writer; fences any older one of the same id."""
        ...

    def group(self, group: str, topics: Sequence[str], member: str, lease_s: float = 10.0) -> GroupReader:
        """A member of `group` that reads `topics`. `member` is unique per process."""
        ...

    def follow(self, offsets: Mapping[Position, int]) -> Follower:
        """A reader of these partitions from these offsets."""
        ...

    def backlog(self, group: str, topic: str) -> int:
        """Records of `topic` that `group` has not committed: the depth of its queue."""
        ...

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Next offset that `group` will read, for each partition of which it has committed any."""
        ...

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Forget records below offset `before`."""
        ...

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, in order."""
        ...

    def expire(self) -> None:
        """Apply retention and compaction now, where the log does not do so by itself."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


def read_batches(
    log: Log, topic: str, since: Mapping[int, int] | None = None, bounds: Mapping[int, tuple[int, int]] | None = None
) -> Iterator[list[Record]]:
    """What a topic holds now, batch by batch, in offset order per partition; from `since` (by partition) on.

    `bounds`: what it holds, for a caller that has asked the log already; nothing behind their ends is read.
    """
    known = log.bounds(topic) if bounds is None else bounds
    begins = {p: max(first, (since or {}).get(p, first)) for p, (first, _) in known.items()}
    follower = log.follow({(topic, partition): begin for partition, begin in begins.items()})
    try:
        while _before(follower.positions(), known):
            batch = follower.poll(timeout=0.1, max_records=2000)
            yield [record for record in batch if record.offset < known[record.partition][1]]
    finally:
        follower.close()


def _before(positions: Mapping[Position, int], bounds: Mapping[int, tuple[int, int]]) -> bool:
    """Is there a partition whose end is not reached? Positions are asked for once: on Kafka each costs time."""
    return any(position < bounds[partition][1] for (_, partition), position in positions.items())


def read_in_time(log: Log, topics: Sequence[str]) -> list[Record]:
    """Everything these topics hold now, in the order in which it was written; at equal times in the topics' order."""
    found = [(rank, record) for rank, topic in enumerate(topics) for record in read_all(log, topic)]
    found.sort(key=lambda one: (one[1].timestamp_ms, one[0], one[1].partition, one[1].offset))
    return [record for _, record in found]


def read_all(log: Log, topic: str) -> list[Record]:
    """Everything a topic holds now, partition after partition. For audits, restores and reports."""
    found = [record for batch in read_batches(log, topic) for record in batch]
    found.sort(key=lambda record: (record.partition, record.offset))
    return found
