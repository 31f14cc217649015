"""Forgetting: retention, compaction and trimming of the embedded log.

Work is done in small transactions, so that writers wait milliseconds, and for a bounded time per call, so that it can
be called every few seconds: what is left is for the next call. Space is used again, not given back to the file system.

Compaction keeps, per partition, the newest offset of every key (`newest`); records from `cleaned` on have not been
looked at. A tombstone is itself forgotten after a day, so that slow readers still hear of it.
"""

from __future__ import annotations

import sqlite3
import time

from pipeline.log.embedded_database import OFFSET_BITS, Database, now_ms, row_id

ROWS_AT_ONCE = 500
BUDGET_S = 0.5
TOMBSTONE_MS = 24 * 3600 * 1000


def expire(database: Database, budget_s: float = BUDGET_S) -> None:
    """Apply retention and compaction to every topic, for about `budget_s` seconds."""
    deadline = time.monotonic() + budget_s
    with database.reading() as connection:
        query = """SELECT p.id, t.retention_ms, t.compacted FROM partitions p JOIN topics t ON t.id = p.topic
                   WHERE (t.retention_ms IS NOT NULL AND p.first < p.next) OR t.compacted"""
        due = connection.execute(query).fetchall()
    for partition_id, retention_ms, compacted in due:
        if retention_ms is not None:
            _expire_old(database, partition_id, now_ms() - retention_ms, deadline)
        if compacted:
            _compact(database, partition_id, deadline)
            _forget_tombstones(database, partition_id, now_ms() - TOMBSTONE_MS)


def trim(database: Database, partition_id: int, before: int, deadline: float | None = None) -> None:
    """Forget records below `before`: at once for readers, then row by row."""
    with database.writing() as connection:
        connection.execute(
            "UPDATE partitions SET first = max(first, min(?, next)), cleaned = max(cleaned, min(?, next)) WHERE id = ?",
            (before, before, partition_id),
        )
    while deadline is None or time.monotonic() < deadline:
        with database.writing() as connection:
            if _delete_below_first(connection, partition_id) < ROWS_AT_ONCE:
                return


def _expire_old(database: Database, partition_id: int, cutoff_ms: int, deadline: float) -> None:
    low = row_id(partition_id, 0)
    high = row_id(partition_id + 1, 0)
    with database.reading() as connection:
        oldest = "SELECT at_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1"
        row = connection.execute(oldest, (low, high)).fetchone()
        if row is None or row[0] >= cutoff_ms:
            return
        query = "SELECT id FROM records WHERE id >= ? AND id < ? AND at_ms >= ? ORDER BY id LIMIT 1"
        kept = connection.execute(query, (low, high, cutoff_ms)).fetchone()
        (end,) = connection.execute("SELECT next FROM partitions WHERE id = ?", (partition_id,)).fetchone()
    trim(database, partition_id, kept[0] - low if kept else end, deadline)


def _delete_below_first(connection: sqlite3.Connection, partition_id: int) -> int:
    low = row_id(partition_id, 0)
    query = "SELECT first FROM partitions WHERE id = ?"
    (first,) = connection.execute(query, (partition_id,)).fetchone()
    rows = "SELECT id FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    cursor = connection.execute(f"DELETE FROM records WHERE id IN ({rows})", (low, low + first, ROWS_AT_ONCE))
    if cursor.rowcount < ROWS_AT_ONCE:
        connection.execute("DELETE FROM newest WHERE partition = ? AND offset < ?", (partition_id, first))
    return cursor.rowcount


def _compact(database: Database, partition_id: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        with database.reading() as connection:
            query = "SELECT cleaned, next FROM partitions WHERE id = ?"
            cleaned, end = connection.execute(query, (partition_id,)).fetchone()
        if cleaned >= end:
            return
        with database.writing() as connection:
            _compact_some(connection, partition_id)


def _compact_some(connection: sqlite3.Connection, partition_id: int) -> None:
    low = row_id(partition_id, 0)
    query = "SELECT cleaned, next FROM partitions WHERE id = ?"
    cleaned, end = connection.execute(query, (partition_id,)).fetchone()
    rows = connection.execute(
        "SELECT id, key, length(value), at_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (low + cleaned, low + end, ROWS_AT_ONCE),
    ).fetchall()
    for identity, key, size, at in rows:
        query = "SELECT offset FROM newest WHERE partition = ? AND key = ?"
        older = connection.execute(query, (partition_id, key)).fetchone()
        if older:
            connection.execute("DELETE FROM records WHERE id = ?", (low + older[0],))
        connection.execute(
            "INSERT OR REPLACE INTO newest VALUES (?, ?, ?, ?)",
            (partition_id, key, identity - low, at if size == 0 else None),
        )
    reached = rows[-1][0] - low + 1 if len(rows) == ROWS_AT_ONCE else end
    connection.execute("UPDATE partitions SET cleaned = ? WHERE id = ?", (reached, partition_id))


def _forget_tombstones(database: Database, partition_id: int, cutoff_ms: int) -> None:
    query = "SELECT key, offset FROM newest WHERE partition = ? AND tombstone_ms < ? LIMIT ?"
    with database.reading() as connection:
        old = connection.execute(query, (partition_id, cutoff_ms, ROWS_AT_ONCE)).fetchall()
    if not old:
        return
    with database.writing() as connection:
        for key, offset in old:
            same = "DELETE FROM newest WHERE partition = ? AND key = ? AND offset = ?"
            if connection.execute(same, (partition_id, key, offset)).rowcount:
                connection.execute("DELETE FROM records WHERE id = ?", (partition_id << OFFSET_BITS | offset,))
