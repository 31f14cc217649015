"""The embedded log: one SQLite file, many processes of one machine, no server.

What it survives and what it does not stands in `embedded_database.py`. Its parts:

    embedded_database   connections, transactions, schema, errors
    embedded_records    topics and rows
    embedded_write      transactions, fencing
    embedded_read       waiting, followers
    embedded_group      leases, ownership, offsets
    embedded_expire     retention, compaction, trimming
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from pipeline.log.api import Position, TopicConfig
from pipeline.log.checks import refuse_other_partitions, refuse_topic, refuse_trim
from pipeline.log.embedded_database import Database
from pipeline.log.embedded_expire import expire, trim
from pipeline.log.embedded_group import EmbeddedGroupReader
from pipeline.log.embedded_read import EmbeddedFollower
from pipeline.log.embedded_records import Layout, bounds_of
from pipeline.log.embedded_write import EmbeddedWriter

PATIENCE_S = 5.0


class EmbeddedLog:
    """A durable log in the file `path`, created when missing.

    Opens nothing before the first call. A call that waits longer than `patience_s` for a lock, or that meets a full
    disk or a damaged file, raises `LogUnavailable`; the next call tries again from the start.
    """

    def __init__(self, path: str, patience_s: float = PATIENCE_S) -> None:
        self._database = Database(path, patience_s)
        self._layout = Layout(self._database)

    def create(self, topics: Sequence[TopicConfig]) -> None:
        """Create what is missing. Raises `UserError` when a topic exists with another number of partitions."""
        for config in topics:
            refuse_topic(config)
        with self._database.writing() as connection:
            for config in topics:
                _create_topic(connection, config)

    def partitions(self, topic: str) -> int:
        """How many partitions it has. Raises `UserError` for an unknown topic."""
        return len(self._layout.ids(topic))

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """For each partition: (first offset still held, next offset)."""
        ids = self._layout.ids(topic)
        with self._database.reading() as connection:
            return {index: bounds_of(connection, partition_id) for index, partition_id in enumerate(ids)}

    def writer(self, transactional_id: str) -> EmbeddedWriter:
        """A writer; fences any older one of the same id."""
        return EmbeddedWriter(self._database, self._layout, transactional_id)

    def group(self, group: str, topics: Sequence[str], member: str, lease_s: float = 10.0) -> EmbeddedGroupReader:
        """A member of `group` that reads `topics`."""
        return EmbeddedGroupReader(self._database, self._layout, group, topics, member, lease_s)

    def follow(self, offsets: Mapping[Position, int]) -> EmbeddedFollower:
        """A reader of these partitions from these offsets."""
        return EmbeddedFollower(self._database, self._layout, offsets)

    def backlog(self, group: str, topic: str) -> int:
        """Records of `topic` that `group` has not committed; after compaction an upper bound."""
        ids = self._layout.ids(topic)
        query = """SELECT p.next - max(p.first, coalesce(o.offset, 0)) FROM partitions p
                   LEFT JOIN offsets o ON o.partition = p.id AND o.group_name = ? WHERE p.id = ?"""
        with self._database.reading() as connection:
            return sum(connection.execute(query, (group, partition_id)).fetchone()[0] for partition_id in ids)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Next offset that `group` will read, for each partition of which it has committed any."""
        ids = {partition_id: number for number, partition_id in enumerate(self._layout.ids(topic))}
        with self._database.reading() as connection:
            rows = connection.execute("SELECT partition, offset FROM offsets WHERE group_name = ?", (group,)).fetchall()
        return {ids[partition_id]: offset for partition_id, offset in rows if partition_id in ids}

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Forget records below offset `before`. Raises `UserError` for a compacted topic."""
        partition_id = self._layout.id((topic, partition))
        query = "SELECT compacted AND retention_ms IS NULL FROM topics WHERE name = ?"
        with self._database.reading() as connection:
            (only_compacted,) = connection.execute(query, (topic,)).fetchone()
        if only_compacted:
            refuse_trim(topic)
        trim(self._database, partition_id, before)

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, in order."""
        with self._database.reading() as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM topics ORDER BY name")]
        return [name for name in names if name.startswith(prefix)]

    def expire(self) -> None:
        """Apply retention and compaction now, for half a second at most; what is left is for the next call."""
        expire(self._database)

    def close(self) -> None:
        """Release everything."""
        self._database.close()


def _create_topic(connection: sqlite3.Connection, config: TopicConfig) -> None:
    query = "SELECT partitions FROM topics WHERE name = ?"
    found = connection.execute(query, (config.name,)).fetchone()
    if found:
        refuse_other_partitions(config, found[0])
        return
    retention_ms = None if config.retention_s is None else int(config.retention_s * 1000)
    cursor = connection.execute(
        "INSERT INTO topics (name, partitions, compacted, retention_ms) VALUES (?, ?, ?, ?)",
        (config.name, config.partitions, config.compacted, retention_ms),
    )
    connection.executemany(
        "INSERT INTO partitions (topic, partition) VALUES (?, ?)",
        [(cursor.lastrowid, index) for index in range(config.partitions)],
    )
