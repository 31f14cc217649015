"""Consumer groups and followers on Kafka.

kafka-python's `poll` says nothing when the broker is away: it returns no records, for ever. So a reader that has seen
nothing for a while asks the broker for an offset, and raises `LogUnavailable` when there is no answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata

from pipeline.errors import Fenced, LogUnavailable, Lost, UserError
from pipeline.log.api import Position, Record
from pipeline.log.kafka_assignor import EvenTopicsAssignor
from pipeline.log.kafka_client import answering

logger = logging.getLogger(__name__)
READING = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
    "fetch_max_wait_ms": 250,
}
QUIET_S = 5.0
"""Silence after which a reader asks whether the broker is there."""

SHORTEST_POLL_S = 0.001


class Consumer:
    """A `KafkaConsumer` that notices when its broker is away. Used by one thread at a time."""

    def __init__(self, config: dict[str, Any], bootstrap: str, patience_s: float, probe: TopicPartition | None) -> None:
        self._bootstrap = bootstrap
        self._patience_s = patience_s
        self._probe = probe
        self._heard_at = time.monotonic()
        with answering(bootstrap):
            self.kafka = KafkaConsumer(**READING, **config)

    def poll(self, timeout: float, max_records: int) -> list[Record]:
        """Records; empty after `timeout` seconds. Raises `Lost` and `LogUnavailable`."""
        with answering(self._bootstrap):
            try:
                found = self.kafka.poll(timeout_ms=max(timeout, SHORTEST_POLL_S) * 1000, max_records=max_records)
            except kafka_errors.OffsetOutOfRangeError as error:
                raise self._lost(error) from error
        if found:
            self._heard_at = time.monotonic()
        elif time.monotonic() - self._heard_at > QUIET_S:
            self._ask()
        return [_record(entry) for entries in found.values() for entry in entries]

    def close(self) -> None:
        """Leave at once: an abandoned consumer would block its group for minutes."""
        self.kafka.close(autocommit=False, timeout_ms=int(self._patience_s * 1000))

    def _ask(self) -> None:
        if self._probe is None:
            return
        with answering(self._bootstrap):
            self.kafka.end_offsets([self._probe], timeout_ms=self._patience_s * 1000)
        self._heard_at = time.monotonic()

    def _lost(self, error: kafka_errors.OffsetOutOfRangeError) -> Lost:
        wanted: dict[TopicPartition, int] = error.args[0]
        ((position, offset), *_) = wanted.items()
        first = self.kafka.beginning_offsets([position], timeout_ms=self._patience_s * 1000)[position]
        end = self.kafka.end_offsets([position], timeout_ms=self._patience_s * 1000)[position]
        where = "gone" if offset < first else "beyond its end"
        what = f"offset {offset} of {position.topic}[{position.partition}]"
        return Lost(f"{what} is {where}; the log holds {first} to {end}")


class KafkaFollower:
    """Reads named partitions from named offsets: an assigned consumer without a group."""

    def __init__(
        self, config: dict[str, Any], bootstrap: str, patience_s: float, offsets: Mapping[Position, int]
    ) -> None:
        self._offsets = dict(offsets)
        probe = next((TopicPartition(*position) for position in offsets), None)
        self._consumer = Consumer(config | {"auto_offset_reset": "none"}, bootstrap, patience_s, probe)
        self._consumer.kafka.assign([TopicPartition(*position) for position in offsets])
        self.seek(offsets)

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """The next records, in offset order per partition; empty after `timeout` seconds. Raises `Lost`."""
        return self._consumer.poll(timeout, max_records)

    def positions(self) -> dict[Position, int]:
        """Next offset to read of every partition."""
        for position, offset in self._offsets.items():
            reached = self._consumer.kafka.position(TopicPartition(*position), timeout_ms=0)
            self._offsets[position] = offset if reached is None else reached
        return dict(self._offsets)

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Read on from other offsets."""
        for position, offset in offsets.items():
            self._consumer.kafka.seek(TopicPartition(*position), offset)
        self._offsets.update(offsets)

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()


@dataclass(frozen=True)
class Commitment:
    """Offsets for a transaction, and what the broker checks them against."""

    offsets: dict[TopicPartition, OffsetAndMetadata]
    membership: Any


class KafkaGroupReader(ConsumerRebalanceListener):
    """A member of a consumer group. Its lease is Kafka's session, renewed by kafka-python's own thread."""

    def __init__(self, config: dict[str, Any], bootstrap: str, patience_s: float, group: str, topics: Sequence[str],
                 member: str, lease_s: float):  # fmt: skip
        membership = {
            "group_id": group,
            "client_id": member,
            "session_timeout_ms": int(lease_s * 1000),
            "heartbeat_interval_ms": max(100, min(3000, int(lease_s * 1000 / 3))),
            "partition_assignment_strategy": (EvenTopicsAssignor,),
            "auto_offset_reset": "earliest",
        }
        self._group = group
        self._patience_s = patience_s
        self._bootstrap = bootstrap
        self._began: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self._held: list[Record] = []
        self._lost: set[TopicPartition] = set()
        self._consumer = Consumer(config | membership, bootstrap, patience_s, TopicPartition(topics[0], 0))
        self._consumer.kafka.subscribe(topics=list(topics), listener=self)

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """Records of the partitions held; empty after `timeout` seconds, and at once when a partition was lost."""
        self._lost.clear()
        if max_records == 0:
            self._only_stay(timeout)
            return []
        if not self._held:
            self._held = self._receive(timeout, max_records)
        if self._lost:
            return []
        self._say_what_expired(self._held[:max_records])
        found, self._held = self._held[:max_records], self._held[max_records:]
        self._delivered(found)
        return found

    def assigned(self) -> frozenset[Position]:
        """What this member holds now."""
        held = self._consumer.kafka.assignment() - self._lost
        return frozenset((position.topic, position.partition) for position in held)

    def rewind(self) -> None:
        """Read again from the group's committed offsets."""
        self._held = []
        kafka = self._consumer.kafka
        timeout_ms = self._patience_s * 1000
        with answering(self._bootstrap):
            for position in [position for position in self._next if position in kafka.assignment()]:
                committed = kafka.committed(position, timeout_ms=timeout_ms)
                if committed is None:
                    kafka.seek_to_beginning(position)
                else:
                    kafka.seek(position, committed)
        self._began.clear()
        self._next.clear()

    def close(self) -> None:
        """Leave the group at once."""
        self._consumer.close()

    def commitment(self, offsets: Mapping[Position, int]) -> Commitment:
        """What to commit. Raises `Fenced` for a partition that this member lost.

        A broker checks the member and its generation, not which partitions it holds: that is checked here. An offset
        just after the last record read is moved past the marker of its transaction, so that an idle topic shows no
        backlog.
        """
        kafka = self._consumer.kafka
        waiting = {TopicPartition(record.topic, record.partition) for record in self._held}
        found = {}
        for position, offset in offsets.items():
            where = TopicPartition(*position)
            if where not in kafka.assignment() or where in self._lost or offset < self._began.get(where, 0):
                raise Fenced(f"{position[0]}[{position[1]}] of group {self._group!r} went to another member")
            if offset == self._next.get(where) and where not in waiting:
                offset = max(offset, kafka.position(where, timeout_ms=0) or offset)
            found[where] = OffsetAndMetadata(offset, "", -1)
        return Commitment(found, kafka.group_metadata())

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """kafka-python starts them at the committed offsets."""

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Forget what was read of them."""
        gone = set(revoked)
        self._held = [record for record in self._held if TopicPartition(record.topic, record.partition) not in gone]
        for position in gone:
            self._began.pop(position, None)
            self._next.pop(position, None)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """The session ended: say so to the caller before they come back."""
        gone = set(lost)
        self._lost |= gone
        self.on_partitions_revoked(gone)

    def _receive(self, timeout: float, max_records: int) -> list[Record]:
        self._finish_joining()
        try:
            return self._consumer.poll(timeout, max_records)
        except LogUnavailable as error:
            if isinstance(error.__cause__, kafka_errors.InvalidSessionTimeoutError):
                raise UserError(f"lease of group {self._group!r} is outside what the broker allows") from error
            raise

    def _finish_joining(self) -> None:
        """Make kafka-python go back to a join that a poll left half done.

        Version 3.0.12 forgets one whose answer comes after the poll's timeout when it had joined again because its
        metadata changed: the member then holds nothing and sends no heartbeats, and no poll ever changes that.
        """
        kafka = self._consumer.kafka
        if kafka.group_metadata().state is MemberState.REBALANCING:
            kafka._coordinator.request_rejoin()

    def _say_what_expired(self, found: Sequence[Record]) -> None:
        """Warn where the group's committed offset is below what the topic holds: kafka-python reads on in silence."""
        firsts = {TopicPartition(one.topic, one.partition): one.offset for one in reversed(found)}
        timeout_ms = self._patience_s * 1000
        for position in firsts.keys() - self._began.keys():
            with answering(self._bootstrap):
                committed = self._consumer.kafka.committed(position, timeout_ms=timeout_ms)
                if committed is None or committed >= firsts[position]:
                    continue
                first = self._consumer.kafka.beginning_offsets([position], timeout_ms=timeout_ms)[position]
            if committed < first:
                where = (position.topic, position.partition)
                logger.warning("group %s skips %d expired records of %s", self._group, first - committed, where)

    def _only_stay(self, timeout: float) -> None:
        kafka = self._consumer.kafka
        kafka.pause(*kafka.assignment())
        self._held += self._receive(timeout, 500)  # of partitions assigned in this very poll
        kafka.resume(*kafka.assignment())

    def _delivered(self, found: Sequence[Record]) -> None:
        for record in found:
            position = TopicPartition(record.topic, record.partition)
            self._began.setdefault(position, record.offset)
            self._next[position] = record.offset + 1


def _record(entry: Any) -> Record:
    headers = tuple((name, value) for name, value in entry.headers)
    key, value = entry.key or b"", entry.value or b""
    return Record(entry.topic, entry.partition, entry.offset, key, value, headers, entry.timestamp)
