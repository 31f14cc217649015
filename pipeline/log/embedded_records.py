"""Rows of the embedded log: which topics there are, records into rows, rows into records."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.errors import Lost, UserError
from pipeline.log.api import Headers, Position, Record, Send, partition_of
from pipeline.log.embedded_database import OFFSET_BITS, Database, now_ms, row_id

POLL_BYTES = 64_000_000
"""A poll returns fewer records than asked for rather than more bytes than this."""

OFFSET_MASK = (1 << OFFSET_BITS) - 1
_SIZES = struct.Struct("<HI")


@dataclass
class Layout:
    """Where every topic's partitions lie; learned from the database once, for topics never change."""

    database: Database
    _ids: dict[str, list[int]] = field(default_factory=dict)

    def ids(self, topic: str) -> list[int]:
        """Partition ids of a topic. Raises `UserError` for an unknown one."""
        if topic not in self._ids:
            with self.database.reading() as connection:
                self._ids |= read_layout(connection)
        if topic not in self._ids:
            raise UserError(f"topic {topic!r} is not on the log {self.database.path}; create it first")
        return self._ids[topic]

    def id(self, position: Position) -> int:
        """Partition id. Raises `UserError` for an unknown topic or partition."""
        topic, partition = position
        ids = self.ids(topic)
        if not 0 <= partition < len(ids):
            raise UserError(f"partition of {topic!r} is {partition}; accepted: 0 to {len(ids) - 1}")
        return ids[partition]

    def place(self, send: Send) -> int:
        """Partition id that a send goes to."""
        ids = self.ids(send.topic)
        chosen = partition_of(send.key, len(ids)) if send.partition is None else send.partition
        return self.id((send.topic, chosen))


def read_layout(connection: sqlite3.Connection) -> dict[str, list[int]]:
    """Partition ids of every topic, in partition order."""
    found: dict[str, list[int]] = {}
    query = "SELECT t.name, p.id FROM topics t JOIN partitions p ON p.topic = t.id ORDER BY t.id, p.partition"
    for name, partition_id in connection.execute(query):
        found.setdefault(name, []).append(partition_id)
    return found


def bounds_of(connection: sqlite3.Connection, partition_id: int) -> tuple[int, int]:
    """(first offset still held, next offset)."""
    return connection.execute("SELECT first, next FROM partitions WHERE id = ?", (partition_id,)).fetchone()


def append(connection: sqlite3.Connection, placed: Iterable[tuple[int, Send]]) -> list[int]:
    """Insert records after the last of their partitions; returns their offsets, in order."""
    ends: dict[int, int] = {}
    offsets: list[int] = []
    rows = []
    at = now_ms()
    for partition_id, send in placed:
        if partition_id not in ends:
            ends[partition_id] = bounds_of(connection, partition_id)[1]
        offset = ends[partition_id]
        ends[partition_id] += 1
        offsets.append(offset)
        rows.append((row_id(partition_id, offset), at, send.key, pack_headers(send.headers), send.value))
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany("UPDATE partitions SET next = ? WHERE id = ?", [(end, pid) for pid, end in ends.items()])
    return offsets


@dataclass(frozen=True)
class Batch:
    """What one read found. `offsets`: where to read on. `full`: there may be more."""

    records: list[Record]
    offsets: dict[Position, int]
    full: bool


def fetch(connection: sqlite3.Connection, layout: Layout, offsets: Mapping[Position, int], max_records: int) -> Batch:
    """The next records from `offsets`, partition after partition in the order given. Raises `Lost`."""
    records: list[Record] = []
    moved: dict[Position, int] = {}
    budget = POLL_BYTES
    for position, offset in offsets.items():
        if len(records) >= max_records or budget <= 0:
            return Batch(records, moved, full=True)
        first, end = bounds_of(connection, layout.id(position))
        if not first <= offset <= end:
            where = "gone" if offset < first else "beyond its end"
            raise Lost(f"offset {offset} of {position[0]}[{position[1]}] is {where}; the log holds {first} to {end}")
        if offset == end:
            continue
        moved[position] = end
        low = layout.id(position) << OFFSET_BITS
        for row in connection.execute(
            "SELECT id, at_ms, key, headers, value FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (low + offset, low + end, max_records - len(records)),
        ):
            records.append(_record(position, row))
            budget -= len(row[4])
            moved[position] = records[-1].offset + 1
            if budget <= 0:
                break
        else:
            if len(records) < max_records:
                moved[position] = end
    return Batch(records, moved, full=len(records) >= max_records or budget <= 0)


def pack_headers(headers: Headers) -> bytes:
    """Headers as bytes.

    >>> unpack_headers(pack_headers((("a", b"1"), ("b", b""))))
    (('a', b'1'), ('b', b''))
    """
    parts = []
    for name, value in headers:
        encoded = name.encode()
        parts += [_SIZES.pack(len(encoded), len(value)), encoded, value]
    return b"".join(parts)


def unpack_headers(packed: bytes) -> Headers:
    """The inverse of `pack_headers`."""
    found = []
    at = 0
    while at < len(packed):
        name_size, value_size = _SIZES.unpack_from(packed, at)
        at += _SIZES.size
        name = packed[at : at + name_size].decode()
        found.append((name, packed[at + name_size : at + name_size + value_size]))
        at += name_size + value_size
    return tuple(found)


def _record(position: Position, row: tuple) -> Record:
    identity, at, key, headers, value = row
    return Record(*position, identity & OFFSET_MASK, key, value, unpack_headers(headers), at)
