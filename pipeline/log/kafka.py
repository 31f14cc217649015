"""The log on Apache Kafka 2.5 or newer, by kafka-python. Connection settings stand in `kafka_client.py`.

    kafka_client   settings, what errors mean
    kafka_topics   creating, bounds, committed offsets, trimming
    kafka_write    transactions, fencing, commits in doubt
    kafka_group    consumer groups, followers

Order matters once: open a group's writer before the group's first poll, so that a transaction left behind by a dead
holder of the id is aborted before its offsets are asked for. Retention and compaction are the broker's work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import UserError
from pipeline.log.api import Position, TopicConfig
from pipeline.log.kafka_client import require_crc32c, settings, silence
from pipeline.log.kafka_group import KafkaFollower, KafkaGroupReader
from pipeline.log.kafka_topics import Topics
from pipeline.log.kafka_write import KafkaWriter

PATIENCE_S = 10.0


class KafkaLog:
    """A durable log on the cluster at `bootstrap`, "host:port[,host:port]".

    Connects at the first call. A call that gets no answer within about `patience_s` raises `LogUnavailable`; the next
    call tries again.
    """

    def __init__(self, bootstrap: str, patience_s: float = PATIENCE_S) -> None:
        require_crc32c()
        silence()
        self._bootstrap = bootstrap
        self._patience_s = patience_s
        self._config = settings(bootstrap, patience_s)
        self._topics = Topics(self._config, bootstrap)

    def create(self, topics: Sequence[TopicConfig]) -> None:
        """Create what is missing. Raises `UserError` when a topic exists with another number of partitions."""
        self._topics.create(topics)

    def partitions(self, topic: str) -> int:
        """How many partitions it has. Raises `UserError` for an unknown topic."""
        return self._topics.partitions(topic)

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """For each partition: (first offset still held, end of what is committed), all that was by now included."""
        self._topics.settle(topic)
        return self._topics.bounds(topic)

    def writer(self, transactional_id: str) -> KafkaWriter:
        """A writer; fences any older one of the same id."""
        return KafkaWriter(self._config, self._bootstrap, self._topics, transactional_id, self._patience_s)

    def group(self, group: str, topics: Sequence[str], member: str, lease_s: float = 10.0) -> KafkaGroupReader:
        """A member of `group` that reads `topics`. `lease_s` must be within what the broker allows (stock: 6 s up)."""
        for topic in topics:
            self._topics.partitions(topic)
        return KafkaGroupReader(self._config, self._bootstrap, self._patience_s, group, topics, member, lease_s)

    def follow(self, offsets: Mapping[Position, int]) -> KafkaFollower:
        """A reader of these partitions from these offsets."""
        for topic, partition in offsets:
            if not 0 <= partition < self._topics.partitions(topic):
                raise UserError(f"partition of {topic!r} is {partition}; accepted: 0 to {self.partitions(topic) - 1}")
        return KafkaFollower(self._config, self._bootstrap, self._patience_s, offsets)

    def backlog(self, group: str, topic: str) -> int:
        """Offsets of `topic` that `group` has not committed: an upper bound, for markers and gaps count too."""
        committed = self.committed(group, topic)
        bounds = self._topics.bounds(topic)
        return sum(end - max(first, committed.get(partition, first)) for partition, (first, end) in bounds.items())

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Next offset that `group` will read, for each partition of which it has committed any."""
        return self._topics.committed(group, topic)

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Forget records below offset `before`, of all that was committed by now."""
        self._topics.settle(topic)  # a commit answers before its marker is on every partition
        self._topics.trim(topic, partition, before)

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, in order."""
        return [name for name in self._topics.names() if name.startswith(prefix)]

    def expire(self) -> None:
        """Nothing to do: the broker does it."""

    def close(self) -> None:
        """Disconnect; writers and readers are closed by who opened them."""
        self._topics.close()
