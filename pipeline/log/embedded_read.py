"""Reading the embedded log: waiting cheaply for commits of any process, and the follower."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from pipeline.log.api import Position, Record
from pipeline.log.embedded_database import Database, Stamp
from pipeline.log.embedded_records import Batch, Layout, fetch

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.04


def until(deadline: float) -> Iterator[None]:
    """Come round again after growing pauses until the deadline (monotonic seconds) has passed; at least once."""
    pause = SHORTEST_PAUSE_S
    while True:
        yield
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        time.sleep(min(pause, remaining))
        pause = min(pause * 1.5, LONGEST_PAUSE_S)


def rotated(offsets: Mapping[Position, int], turn: int) -> dict[Position, int]:
    """The same, beginning elsewhere each turn, so that a busy partition does not starve the others.

    >>> rotated({("t", 0): 5, ("t", 1): 6}, 1)
    {('t', 1): 6, ('t', 0): 5}
    """
    items = list(offsets.items())
    start = turn % len(items) if items else 0
    return dict(items[start:] + items[:start])


class Cursor:
    """Positions in several partitions and when to look again. Used by one thread at a time."""

    def __init__(self, database: Database, layout: Layout, offsets: Mapping[Position, int]) -> None:
        self._database = database
        self._layout = layout
        self.offsets = dict(offsets)
        self._seen: Stamp | None = None
        self._turn = 0

    def take(self, max_records: int) -> list[Record]:
        """Records that are there now. Does nothing while nobody has committed. Raises `Lost`."""
        stamp = self._database.stamp()
        if stamp == self._seen or not self.offsets:
            return []
        self._turn += 1
        with self._database.reading() as connection:
            batch = fetch(connection, self._layout, rotated(self.offsets, self._turn), max_records)
        self._move(batch, stamp)
        return batch.records

    def look_again(self) -> None:
        """Positions have changed: what was seen does not count."""
        self._seen = None

    def _move(self, batch: Batch, stamp: Stamp) -> None:
        self.offsets.update(batch.offsets)
        self._seen = None if batch.full else stamp


class EmbeddedFollower:
    """Reads named partitions from named offsets."""

    def __init__(self, database: Database, layout: Layout, offsets: Mapping[Position, int]) -> None:
        for position in offsets:
            layout.id(position)  # refuses what is unknown
        self._cursor = Cursor(database, layout, offsets)

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """The next records, in offset order per partition; empty after `timeout` seconds. Raises `Lost`."""
        for _ in until(time.monotonic() + timeout):
            records = self._cursor.take(max_records)
            if records:
                return records
        return []

    def positions(self) -> dict[Position, int]:
        """Next offset to read of every partition."""
        return dict(self._cursor.offsets)

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Read on from other offsets."""
        self._cursor.offsets.update(offsets)
        self._cursor.look_again()

    def close(self) -> None:
        """Stop reading; nothing is held."""
