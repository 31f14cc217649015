"""Writing to Kafka: an idempotent, transactional producer, fenced by its transactional id.

A transaction is collected in memory and then written in one burst by a thread of its own, because kafka-python's
calls that end a transaction wait without bound. The caller waits `patience_s`. When that has passed, the transaction
is in doubt: `LogUnavailable` is raised, the thread goes on, and the writer's next transaction first waits for its
outcome. The same content is then not written again if it was committed after all; if it had offsets and the new
content differs, `Fenced` tells the caller to read again from what is committed.

Nothing is in doubt after the death of this process: the next holder of the id aborts what was not committed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import Fenced, LogUnavailable, Poison, UserError
from pipeline.log.api import Position, Send, Transaction, partition_of
from pipeline.log.checks import refuse_large
from pipeline.log.kafka_group import Commitment, KafkaGroupReader
from pipeline.log.kafka_producer import TransactionalProducer, Written
from pipeline.log.kafka_topics import Topics


@dataclass
class Attempt:
    """One transaction being written by a thread."""

    sends: Sequence[tuple[int, Send]]
    offsets: dict[Position, int]
    commitment: Commitment | None
    outcome: Future[Written] = field(default_factory=Future)

    def same(self, other: Attempt) -> bool:
        """Is it the same content, tried again?"""
        return self.sends == other.sends and self.offsets == other.offsets


class KafkaWriter:
    """Sends records in transactions under one transactional id."""

    def __init__(
        self, config: dict[str, Any], bootstrap: str, topics: Topics, transactional_id: str, patience_s: float
    ):
        self._bootstrap = bootstrap
        self._topics = topics
        self._id = transactional_id
        self._patience_s = patience_s
        self._doubt: Attempt | None = None
        self._producer = TransactionalProducer(config, bootstrap, topics, transactional_id, patience_s)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Collects in memory; commits at the end of the block."""
        transaction = Transaction()
        yield transaction
        if transaction.sends or transaction.offsets:
            transaction.written = self._commit(transaction)

    def close(self) -> None:
        """End the producer; a transaction in doubt is given up."""
        self._producer.close(0.0 if self._doubt else self._patience_s)

    def _commit(self, transaction: Transaction) -> Written:
        refuse_large(transaction.sends)
        attempt = Attempt(
            [(self._place(send), send) for send in transaction.sends],
            dict(transaction.offsets),
            _commitment(transaction),
        )
        written = self._settle(attempt)
        if written is not None:
            return written
        threading.Thread(target=self._run, args=(attempt,), name=f"commit {self._id}", daemon=True).start()
        return self._outcome(attempt)

    def _place(self, send: Send) -> int:
        count = self._topics.partitions(send.topic)
        partition = partition_of(send.key, count) if send.partition is None else send.partition
        if not 0 <= partition < count:
            raise UserError(f"partition of {send.topic!r} is {partition}; accepted: 0 to {count - 1}")
        return partition

    def _settle(self, attempt: Attempt) -> Written | None:
        """Learn how an earlier transaction in doubt ended; what it wrote if it was this one."""
        if self._doubt is None:
            return None
        doubt = self._doubt
        try:
            written = self._outcome(doubt)
        except (LogUnavailable, Fenced, Poison):
            if self._doubt is not None:
                raise
            return None  # it came to nothing: write anew
        if doubt.same(attempt):
            return written
        if doubt.offsets:
            raise Fenced(f"a transaction of {self._id!r} that was in doubt has been committed; read again")
        return None

    def _outcome(self, attempt: Attempt) -> Written:
        try:
            self._doubt = attempt
            written = attempt.outcome.result(self._patience_s)
        except StillRunning as error:
            if attempt.outcome.done():
                raise
            reason = f"log kafka://{self._bootstrap} does not answer: no commit within {self._patience_s:g} s"
            raise LogUnavailable(reason) from error
        except BaseException:
            self._doubt = None
            raise
        self._doubt = None
        return written

    def _run(self, attempt: Attempt) -> None:
        try:
            attempt.outcome.set_result(self._producer.write(attempt.sends, attempt.commitment))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            attempt.outcome.set_exception(error)


def _commitment(transaction: Transaction) -> Commitment | None:
    if not transaction.offsets:
        return None
    if not isinstance(transaction.reader, KafkaGroupReader):
        raise UserError("offsets are committed for a reader of another log; accepted: a reader of this log")
    return transaction.reader.commitment(transaction.offsets)
