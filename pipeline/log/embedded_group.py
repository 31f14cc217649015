"""Consumer groups of the embedded log.

Every member owns the same few rows: its lease, and the partitions it holds. At each poll a member renews its lease when
a third of it has passed, and when the group has changed it works out the same target as everybody else
(`assignment.assign`), gives up what is no longer its own and takes what is its own and free. Nothing is taken from a
member whose lease runs. A member's name on the log is unique to one `EmbeddedGroupReader`, so it serves as the fencing
epoch of an ownership: who holds a partition again after it was lost has claimed it again, and reads the committed
offset again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence

from pipeline.errors import Fenced
from pipeline.log.api import Position, Record
from pipeline.log.assignment import assign
from pipeline.log.embedded_database import Database, Stamp, now_ms
from pipeline.log.embedded_read import Cursor, until
from pipeline.log.embedded_records import Layout, bounds_of

logger = logging.getLogger(__name__)


class EmbeddedGroupReader:
    """A member of a consumer group."""

    def __init__(
        self, database: Database, layout: Layout, group: str, topics: Sequence[str], member: str, lease_s: float
    ):
        self._database = database
        self._layout = layout
        self._group = group
        self._member = f"{member}/{uuid.uuid4().hex}"
        self._lease_ms = int(lease_s * 1000)
        self._positions = {pid: (topic, index) for topic in topics for index, pid in enumerate(layout.ids(topic))}
        self._topics = "\n".join(topics)
        self._cursor = Cursor(database, layout, {})
        self._floors: dict[Position, int] = {}
        self._changes = -1
        self._meet_at = 0
        self._met: Stamp | None = None

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """Records of the partitions held; empty after `timeout` seconds, and at once when a partition was lost."""
        for _ in until(time.monotonic() + timeout):
            if not self._meet():
                return []
            if max_records == 0:
                return []
            records = self._cursor.take(max_records)
            if records:
                return records
        return []

    def assigned(self) -> frozenset[Position]:
        """What this member holds now."""
        return frozenset(self._cursor.offsets)

    def rewind(self) -> None:
        """Read again from the group's committed offsets."""
        with self._database.reading() as connection:
            self._start(connection, list(self._cursor.offsets))

    def close(self) -> None:
        """Leave the group at once."""
        self._cursor.offsets.clear()
        with self._database.writing() as connection:
            connection.execute("DELETE FROM owners WHERE group_name = ? AND member = ?", (self._group, self._member))
            connection.execute("DELETE FROM members WHERE group_name = ? AND member = ?", (self._group, self._member))
            self._announce(connection)

    def commit(self, connection: sqlite3.Connection, offsets: Mapping[Position, int]) -> None:
        """Write offsets inside a writer's transaction. Raises `Fenced` for a partition that this member lost."""
        for position, offset in offsets.items():
            partition_id = self._layout.id(position)
            query = "SELECT member FROM owners WHERE group_name = ? AND partition = ?"
            owner = connection.execute(query, (self._group, partition_id)).fetchone()
            if owner != (self._member,) or offset < self._floors.get(position, offset + 1):
                raise Fenced(f"{position[0]}[{position[1]}] of group {self._group!r} went to another member")
            connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", (self._group, partition_id, offset))

    def _meet(self) -> bool:
        """Renew and rebalance when it is time. False when something was lost, so that the caller can drop its state."""
        stamp = self._database.stamp()
        in_time = now_ms() < self._meet_at
        if in_time and stamp == self._met:
            return True
        self._met = stamp
        with self._database.reading() as connection:
            row = connection.execute("SELECT changes FROM groups WHERE name = ?", (self._group,)).fetchone()
        if in_time and row == (self._changes,):
            return True
        with self._database.writing() as connection:
            return self._rebalance(connection, now_ms())

    def _rebalance(self, connection: sqlite3.Connection, now: int) -> bool:
        joined = self._renew(connection, now)
        buried = self._bury(connection, now)
        query = "SELECT partition, member FROM owners WHERE group_name = ?"
        owners: dict[int, str] = dict(connection.execute(query, (self._group,)))
        held = {pid for pid, owner in owners.items() if owner == self._member}
        lost = self.assigned() - {self._positions[pid] for pid in held}
        target = self._target(connection, owners)
        mine = {pid for pid, owner in target.items() if owner == self._member}
        released = held - mine
        claimed = set() if lost else {pid for pid in mine if pid not in owners}
        self._write_ownership(connection, released, claimed)
        if joined or buried or released or claimed:
            self._announce(connection)
        self._drop(lost | {self._positions[pid] for pid in released})
        self._start(connection, [self._positions[pid] for pid in sorted(claimed)])
        self._changes = -1 if lost else self._count(connection)
        return not lost

    def _renew(self, connection: sqlite3.Connection, now: int) -> bool:
        query = "SELECT 1 FROM members WHERE group_name = ? AND member = ?"
        known = connection.execute(query, (self._group, self._member)).fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)",
            (self._group, self._member, self._topics, now + self._lease_ms),
        )
        query = "SELECT min(until_ms) FROM members WHERE group_name = ? AND until_ms > ?"
        (ends,) = connection.execute(query, (self._group, now)).fetchone()
        self._meet_at = min(now + self._lease_ms // 3, ends + 1)
        return known is None

    def _bury(self, connection: sqlite3.Connection, now: int) -> bool:
        dead = "SELECT member FROM members WHERE group_name = ? AND until_ms <= ?"
        cursor = connection.execute(
            f"DELETE FROM owners WHERE group_name = ? AND member IN ({dead})", (self._group, self._group, now)
        )
        buried = cursor.rowcount
        cursor = connection.execute("DELETE FROM members WHERE group_name = ? AND until_ms <= ?", (self._group, now))
        return buried + cursor.rowcount > 0

    def _target(self, connection: sqlite3.Connection, owners: Mapping[int, str]) -> dict[int, str]:
        rows = connection.execute("SELECT member, topics FROM members WHERE group_name = ?", (self._group,))
        wishes = {member: topics.split("\n") for member, topics in rows}
        topics = {topic: set(self._layout.ids(topic)) for wish in wishes.values() for topic in wish}
        members = {member: set().union(*(topics[topic] for topic in wish)) for member, wish in wishes.items()}
        return assign(members, owners, [topics[topic] for topic in sorted(topics)])

    def _write_ownership(self, connection: sqlite3.Connection, released: set[int], claimed: set[int]) -> None:
        connection.executemany(
            "DELETE FROM owners WHERE group_name = ? AND partition = ?", [(self._group, pid) for pid in released]
        )
        connection.executemany(
            "INSERT INTO owners VALUES (?, ?, ?)", [(self._group, pid, self._member) for pid in claimed]
        )

    def _announce(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO groups VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET changes = changes + 1", (self._group,)
        )

    def _count(self, connection: sqlite3.Connection) -> int:
        return connection.execute("SELECT changes FROM groups WHERE name = ?", (self._group,)).fetchone()[0]

    def _drop(self, positions: set[Position] | frozenset[Position]) -> None:
        for position in positions:
            self._cursor.offsets.pop(position, None)
            self._floors.pop(position, None)

    def _start(self, connection: sqlite3.Connection, positions: Sequence[Position]) -> None:
        for position in positions:
            partition_id = self._layout.id(position)
            query = "SELECT offset FROM offsets WHERE group_name = ? AND partition = ?"
            row = connection.execute(query, (self._group, partition_id)).fetchone()
            first, _ = bounds_of(connection, partition_id)
            if row and row[0] < first:
                logger.warning("group %s skips %d expired records of %s", self._group, first - row[0], position)
            self._cursor.offsets[position] = self._floors[position] = max(first, row[0] if row else 0)
        self._cursor.look_again()
