"""The SQLite file under the embedded log: connections, transactions, the schema, and what its errors mean.

WAL mode with `synchronous=NORMAL`: what a process committed survives its SIGKILL and that of every other process. It
does not survive, for sure, a power cut or a crash of the operating system: then the newest transactions may be missing
(whole ones; the file stays sound). The file must be on a local disk: WAL needs shared memory.

Each thread has a connection of its own. A record's row id is `partition id << 40 | offset`, so that one table is at
once the index: reading on from an offset is a range scan.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import LogUnavailable, UserError

FORMAT = 1
"""Written to `user_version`; a file with a newer one is refused."""

OFFSET_BITS = 40
PAGE_BYTES = 8192
CHECKPOINT_PAGES = 4000

SCHEMA = """
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
                     compacted INTEGER NOT NULL, retention_ms INTEGER);
CREATE TABLE partitions (id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, partition INTEGER NOT NULL,
                         first INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0,
                         cleaned INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition));
CREATE TABLE records (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, key BLOB NOT NULL, headers BLOB NOT NULL,
                      value BLOB NOT NULL);
CREATE TABLE newest (partition INTEGER, key BLOB, offset INTEGER NOT NULL, tombstone_ms INTEGER,
                     PRIMARY KEY (partition, key)) WITHOUT ROWID;
CREATE INDEX tombstones ON newest (partition, tombstone_ms) WHERE tombstone_ms IS NOT NULL;
CREATE TABLE writers (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY, changes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE members (group_name TEXT, member TEXT, topics TEXT NOT NULL, until_ms INTEGER NOT NULL,
                      PRIMARY KEY (group_name, member)) WITHOUT ROWID;
CREATE TABLE owners (group_name TEXT, partition INTEGER, member TEXT NOT NULL,
                     PRIMARY KEY (group_name, partition)) WITHOUT ROWID;
CREATE TABLE offsets (group_name TEXT, partition INTEGER, offset INTEGER NOT NULL,
                      PRIMARY KEY (group_name, partition)) WITHOUT ROWID;
"""

WAITED_FOR = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Stamp = tuple[int, int, int]
"""Changes when anything may have been committed: (connection, its data version, its own changes)."""


def row_id(partition_id: int, offset: int) -> int:
    """Where a record lies.

    >>> row_id(1, 5) - row_id(1, 0), row_id(2, 0) > row_id(1, 10**12)
    (5, True)
    """
    return partition_id << OFFSET_BITS | offset


def now_ms() -> int:
    """Milliseconds since the Unix epoch: the clock that processes of one machine share, also for leases."""
    return time.time_ns() // 1_000_000


class Database:
    """One SQLite file, used by many threads and processes.

    `patience_s` bounds how long one call waits for a lock before it raises `LogUnavailable`.
    """

    def __init__(self, path: str, patience_s: float) -> None:
        if Path(path).is_dir():
            raise UserError(f"log address is {path!r}, which is a directory; accepted: the path of a file")
        self.path = path
        self.patience_s = patience_s
        self._local = threading.local()
        self._opened: dict[int, sqlite3.Connection] = {}
        self._serials = itertools.count(1)
        self._lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent snapshot."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The write lock: commits at the end of the block, rolls back on an exception."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def stamp(self) -> Stamp:
        """Equal stamps, equal content. Costs microseconds: what an idle poll pays."""
        try:  # not `_translated`: an idle poll comes here a hundred times a second
            connection = self._connection()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        return self._local.serial, version, connection.total_changes

    def close(self) -> None:
        """Close every connection of this process."""
        with self._lock:
            opened, self._opened = self._opened, {}
        for connection in opened.values():
            connection.close()
        self._local = threading.local()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._translated():
            connection = self._connection()
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error) -> LogUnavailable:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in WAITED_FOR:
            self._forget()
        return LogUnavailable(f"log {self.path} does not answer: {error}")

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._open()
            serial = next(self._serials)
            self._local.connection, self._local.serial = connection, serial
            with self._lock:
                self._opened[serial] = connection
        return connection

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            with self._lock:
                self._opened.pop(self._local.serial, None)
            connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogUnavailable(f"log {self.path} cannot be opened: {error.strerror}") from error
        # check_same_thread is off only so that `close` can close the connections of threads that have ended.
        connection = sqlite3.connect(
            self.path, timeout=self.patience_s, isolation_level=None, cached_statements=64, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        self._enter_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={4 * CHECKPOINT_PAGES * PAGE_BYTES}")
        if _format(connection) == 0:
            _create_schema(connection)
        if _format(connection) > FORMAT:
            raise UserError(f"log {self.path} has format {_format(connection)}; accepted: {FORMAT} or older")

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # Two first openers at once: SQLite does not call its busy handler here.
                if error.sqlite_errorcode & 0xFF not in WAITED_FOR or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _format(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _create_schema(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _format(connection) == 0:
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
