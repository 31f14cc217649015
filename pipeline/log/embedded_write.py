"""Writing to the embedded log: one SQLite transaction per transaction of ours, fenced by the writer's epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import failpoint
from pipeline.errors import Fenced, UserError
from pipeline.log.api import Transaction
from pipeline.log.checks import refuse_large
from pipeline.log.embedded_database import Database
from pipeline.log.embedded_group import EmbeddedGroupReader
from pipeline.log.embedded_records import Layout, append


class EmbeddedWriter:
    """Sends records in transactions under one transactional id."""

    def __init__(self, database: Database, layout: Layout, transactional_id: str) -> None:
        self._database = database
        self._layout = layout
        self._id = transactional_id
        self._number = 0
        with database.writing() as connection:
            connection.execute(
                "INSERT INTO writers VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1", (self._id,)
            )
            self._epoch = self._newest_epoch(connection)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Collects in memory; commits in one go at the end of the block."""
        transaction = Transaction()
        yield transaction
        if transaction.sends or transaction.offsets:
            self._commit(transaction)

    def close(self) -> None:
        """Give the id back; nothing is held."""

    def _commit(self, transaction: Transaction) -> None:
        refuse_large(transaction.sends)
        placed = [(self._layout.place(send), send) for send in transaction.sends]
        reader = transaction.reader
        if transaction.offsets and not isinstance(reader, EmbeddedGroupReader):
            raise UserError("offsets are committed for a reader of another log; accepted: a reader of this log")
        with self._database.writing() as connection:
            if self._newest_epoch(connection) != self._epoch:
                raise Fenced(f"transactional id {self._id!r} was opened by a newer writer")
            offsets = append(connection, placed)
            if isinstance(reader, EmbeddedGroupReader):
                reader.commit(connection, transaction.offsets)
            self._number += 1
            failpoint.reach("log.in_transaction", number=self._number)
        transaction.written = [
            (send.topic, self._layout.ids(send.topic).index(partition_id), offset)
            for (partition_id, send), offset in zip(placed, offsets, strict=True)
        ]

    def _newest_epoch(self, connection) -> int:
        return connection.execute("SELECT epoch FROM writers WHERE name = ?", (self._id,)).fetchone()[0]
