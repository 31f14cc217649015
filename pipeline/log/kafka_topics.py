"""Topics on Kafka through its admin interface: what there is, where it begins and ends, making, trimming."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec
from kafka.protocol.consumer import IsolationLevel

from pipeline.errors import LogUnavailable, UserError
from pipeline.log.api import TopicConfig
from pipeline.log.checks import refuse_other_partitions, refuse_replicas, refuse_topic, refuse_trim
from pipeline.log.kafka_client import answering

T = TypeVar("T")
SETTLE_S = 1.0
"""Longest wait for transactions that have ended, or are about to, to show in the partitions."""
SETTLE_EACH_S = 0.01
COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "max.compaction.lag.ms": "600000"}


class Topics:
    """The cluster's topics. Connects at the first call, again after an error; safe between threads."""

    def __init__(self, config: dict[str, Any], bootstrap: str) -> None:
        self._config = config
        self._bootstrap = bootstrap
        self._admin: KafkaAdminClient | None = None
        self._lock = threading.Lock()
        self._partitions: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """How many partitions it has. Raises `UserError` for an unknown topic."""
        if topic not in self._partitions:
            self._partitions |= self._describe([topic])
        if topic not in self._partitions:
            raise UserError(f"topic {topic!r} is not on the log kafka://{self._bootstrap}; create it first")
        return self._partitions[topic]

    def names(self) -> list[str]:
        """Every topic that is not Kafka's own."""
        return sorted(name for name in self._call(lambda admin: admin.list_topics()) if not name.startswith("__"))

    def create(self, topics: Sequence[TopicConfig]) -> None:
        """Create what is missing, and wait until it can be used."""
        for config in topics:
            refuse_topic(config)
        found = self._describe([config.name for config in topics])
        missing = [config for config in topics if config.name not in found]
        if missing:
            self._call(lambda admin: _create(admin, missing))
            self._call(lambda admin: admin.wait_for_topics([config.name for config in missing]))
            found = self._describe([config.name for config in topics])
        for config in topics:
            refuse_other_partitions(config, found.get(config.name, config.partitions))

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """For each partition: (first offset, end of what is committed)."""
        positions = self._positions(topic)
        first, end = (self._offsets(positions, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
        return {position.partition: (first[position], end[position]) for position in positions}

    def settle(self, topic: str) -> None:
        """Wait until what was written by now is committed or aborted, at most `SETTLE_S`.

        A commit is answered when the coordinator holds it, and shows in the partitions a moment later: who reads a
        topic to its end would miss what its own process has just committed.
        """
        positions = self._positions(topic)
        written = self._offsets(positions, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            settled = self._offsets(positions, OffsetSpec.LATEST)
            if all(settled[position] >= written[position] for position in positions):
                return
            time.sleep(SETTLE_EACH_S)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What a group has committed, by partition."""
        positions = self._positions(topic)
        found = self._call(lambda admin: admin.list_group_offsets({group: positions}))
        return {position.partition: entry.offset for position, entry in found[group].items() if entry.offset >= 0}

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Forget records below `before`. Raises `UserError` for a compacted topic."""
        if not 0 <= partition < self.partitions(topic):
            raise UserError(f"partition of {topic!r} is {partition}; accepted: 0 to {self.partitions(topic) - 1}")
        first, end = self.bounds(topic)[partition]
        if before <= first:
            return
        position = TopicPartition(topic, partition)
        try:
            self._call(lambda admin: admin.delete_records({position: min(before, end)}))
        except LogUnavailable as error:
            if isinstance(error.__cause__, kafka_errors.PolicyViolationError):
                refuse_trim(topic)
            raise

    def transaction(self, transactional_id: str) -> Any:
        """What the coordinator knows of a transactional id; None when it has never heard of it."""
        try:
            found = self._call(lambda admin: admin.describe_transactions([transactional_id]))
        except LogUnavailable as error:
            if isinstance(error.__cause__, kafka_errors.TransactionalIdNotFoundError):
                return None
            raise
        return found[transactional_id]

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def _describe(self, names: Sequence[str]) -> dict[str, int]:
        found = self._call(lambda admin: admin.describe_topics(list(names)))
        return {topic["name"]: len(topic["partitions"]) for topic in found if topic["error_code"] == 0}

    def _positions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, index) for index in range(self.partitions(topic))]

    def _offsets(
        self, positions: Sequence[TopicPartition], spec: OffsetSpec, level: Any = IsolationLevel.READ_COMMITTED
    ) -> dict[TopicPartition, int]:
        asked = dict.fromkeys(positions, spec)
        found = self._call(lambda admin: admin.list_partition_offsets(asked, isolation_level=level))
        return {position: entry.offset for position, entry in found.items()}

    def _call(self, action: Callable[[KafkaAdminClient], T]) -> T:
        with answering(self._bootstrap):
            with self._lock:
                if self._admin is None:
                    self._admin = KafkaAdminClient(**self._config)
                admin = self._admin
            return action(admin)


def kafka_config(config: TopicConfig) -> dict[str, str]:
    """A topic's settings, in Kafka's words.

    >>> kafka_config(TopicConfig("t", 1, retention_s=3600.0))
    {'cleanup.policy': 'delete', 'retention.ms': '3600000', 'retention.bytes': '-1'}
    """
    retention_ms = -1 if config.retention_s is None else int(config.retention_s * 1000)
    kept = {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "retention.bytes": "-1"}
    if not config.compacted:
        return kept
    return COMPACTED if config.retention_s is None else kept | COMPACTED | {"cleanup.policy": "compact,delete"}


def _wanted(config: TopicConfig) -> dict[str, Any]:
    copies = {"replication_factor": config.replicas} if config.replicas else {}
    return {"num_partitions": config.partitions, "configs": kafka_config(config)} | copies


def _create(admin: KafkaAdminClient, missing: Sequence[TopicConfig]) -> None:
    try:
        admin.create_topics({config.name: _wanted(config) for config in missing})
    except kafka_errors.TopicAlreadyExistsError:
        return  # another process was quicker; its number of partitions is checked afterwards
    except kafka_errors.InvalidReplicationFactorError as error:
        refuse_replicas(missing[0], len(admin.describe_cluster()["brokers"]), error)
    except ValueError as error:
        if "ConfigSourceType" not in str(error):  # raised after the topic exists, by brokers that leave a field out
            raise
