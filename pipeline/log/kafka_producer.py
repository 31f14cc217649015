"""One transaction on Kafka from begin to a known end, however long that takes.

kafka-python's producer ends in a fatal state in two cases that are not fatal to us: a request to the coordinator timed
out (the broker hung), and the coordinator aborted a transaction that stood open for longer than
`TRANSACTION_TIMEOUT_MS` (the broker was away in the middle of it). Then the coordinator is asked who holds the
transactional id. If somebody newer does: `Fenced`. If not, a new producer takes over from the dead one, and the state
that the coordinator told says how the transaction ended: once a commit has been asked for, all of it had been
registered, so the state is that of this transaction and not of the one before.

A third case takes it no further at all: it loses a request to a coordinator that is not ready while the broker comes
back, and waits for its answer for ever. A step whose request is nowhere for `LOST_S` ends as a fatal state does.

Nobody newer: the producer id is ours, and its epoch is the one we wrote with, or the next one with an aborted
transaction (that is what the coordinator leaves behind when time is up).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from pipeline import failpoint
from pipeline.errors import Fenced, LogUnavailable, Poison
from pipeline.log.api import Send
from pipeline.log.kafka_client import REQUEST_TIMEOUT_MS, answering, translated
from pipeline.log.kafka_group import Commitment
from pipeline.log.kafka_topics import Topics

TRANSACTION_TIMEOUT_MS = 15_000
DELIVERY_TIMEOUT_MS = 12_000
SEND_S = 2 * DELIVERY_TIMEOUT_MS / 1000
BATCH_BYTES = 262_144
QUEUED_BYTES = 32_000_000
"""kafka-python's producer has no bound on its memory: this is ours, per writer."""

ASK_AGAIN_S = 0.5
LOST_S = 1.5 * REQUEST_TIMEOUT_MS / 1000
"""While kafka-python waits for a broker to be ready, a request timeout at most, its request is nowhere to be seen."""
LOOK_S = 0.5
COMMITTED = ("PrepareCommit", "CompleteCommit")
ABORTED = ("PrepareAbort", "CompleteAbort")
T = TypeVar("T")
Written = list[tuple[str, int, int]]


class TransactionalProducer:
    """Writes transactions under one transactional id; used by one thread at a time."""

    def __init__(
        self, config: dict[str, Any], bootstrap: str, topics: Topics, transactional_id: str, patience_s: float
    ):
        self._config = config
        self._bootstrap = bootstrap
        self._topics = topics
        self._id = transactional_id
        self._patience_s = patience_s
        self._number = 0
        self._closed = False
        self._fenced = False
        self._producer = self._connect()
        try:
            self._take_over()
        except BaseException:
            _end(self._producer, 0)
            raise

    def write(self, sends: Sequence[tuple[int, Send]], commitment: Commitment | None) -> Written:
        """Write (partition, record) pairs and offsets; returns where the records are once they are committed.

        Raises `LogUnavailable` only for a transaction that surely did not take place.
        """
        self._refuse_when_fenced()
        holder = self._state().producer_id_and_epoch
        asked = False
        try:
            self._producer.begin_transaction()
            written = self._send(sends, commitment)
            self._number += 1
            failpoint.reach("log.in_transaction", number=self._number)
            asked = True
            self._step(self._state().begin_commit)
        except (kafka_errors.KafkaError, OSError) as error:
            self._abort()
            if not self._state().has_fatal_error():
                raise self._meaning(error) from error
            if not self._took_place(holder, asked):
                raise LogUnavailable(f"log kafka://{self._bootstrap} was away: a transaction was aborted") from error
        return written

    def close(self, timeout_s: float) -> None:
        """End the producer, within about `timeout_s`."""
        self._closed = True
        _end(self._producer, timeout_s)

    def _connect(self) -> KafkaProducer:
        with answering(self._bootstrap):
            return KafkaProducer(
                **self._config,
                transactional_id=self._id,
                transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                max_block_ms=int(self._patience_s * 1000),
                batch_size=BATCH_BYTES,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )

    def _take_over(self) -> None:
        """Fence older holders; returns when what they had begun has ended."""
        with answering(self._bootstrap):
            self._producer.init_transactions()

    def _state(self) -> Any:
        return self._producer._transaction_manager  # kafka-python has no public way to see it

    def _send(self, sends: Sequence[tuple[int, Send]], commitment: Commitment | None) -> Written:
        futures = []
        queued = 0
        for partition, send in sends:
            queued += len(send.value)
            if queued > QUEUED_BYTES:
                self._producer.flush(timeout=SEND_S)
                queued = len(send.value)
            value = send.value or None  # Kafka's tombstone is "no value"
            futures.append(self._producer.send(send.topic, value, send.key, list(send.headers), partition))
        self._producer.flush(timeout=SEND_S)
        if commitment:
            self._step(lambda: self._state().send_offsets_to_transaction(commitment.offsets, commitment.membership))
        # Each is looked at before the commit: kafka-python commits without the records of a batch that failed.
        found = [future.get(timeout=SEND_S) for future in futures]
        return [(metadata.topic, metadata.partition, metadata.offset) for metadata in found]

    def _step(self, begin: Callable[[], Any]) -> None:
        """What the producer's method of that name does, but for the wait: not for a request that was lost."""
        result = begin()
        self._producer._sender.wakeup()
        seen = time.monotonic()
        while not result.wait(1000 * LOOK_S):
            if self._state()._pending_requests or self._state().has_in_flight_transactional_request():
                seen = time.monotonic()
            elif self._closed or time.monotonic() - seen > LOST_S:
                lost = kafka_errors.KafkaError("a request to the transaction's coordinator was lost")
                self._state().transition_to_fatal_error(lost)
                raise lost

    def _abort(self) -> None:
        try:
            self._step(self._state().begin_abort)
        except (kafka_errors.KafkaError, OSError):
            pass  # a fatal state, which the caller looks for, or nothing left to abort
        # kafka-python 3.0 would send the offsets of a refused commit again with the next transaction, also when their
        # partitions have gone to another member by then.
        self._state()._pending_txn_offset_commits.clear()

    def _meaning(self, error: BaseException) -> BaseException:
        if isinstance(error, kafka_errors.CommitFailedError):
            return Fenced(f"the group of {self._id!r} moved on while it worked: {error}")
        if isinstance(error, kafka_errors.MessageSizeTooLargeError | kafka_errors.RecordListTooLargeError):
            return Poison(f"record is too large for the broker: {error}")
        return translated(self._bootstrap, error)

    def _took_place(self, holder: Any, asked: bool) -> bool:
        """Put a new producer in place of the dead one, unless fenced; was what it was asked to commit committed?"""
        found = self._insist(lambda: self._topics.transaction(self._id))
        self._fenced = found is not None and not _ours(found, holder)
        self._refuse_when_fenced()
        self._insist(self._replace)
        return asked and found is not None and found.state.value in COMMITTED

    def _replace(self) -> None:
        _end(self._producer, 0)
        self._producer = self._connect()
        self._take_over()

    def _insist(self, action: Callable[[], T]) -> T:
        while True:
            try:
                return action()
            except LogUnavailable:
                if self._closed:
                    raise
                time.sleep(ASK_AGAIN_S)

    def _refuse_when_fenced(self) -> None:
        if self._fenced:
            raise Fenced(f"transactional id {self._id!r} was opened by a newer writer")


def _ours(found: Any, holder: Any) -> bool:
    timed_out = found.producer_epoch == holder.epoch + 1 and found.state.value in ABORTED
    return found.producer_id == holder.producer_id and (found.producer_epoch == holder.epoch or timed_out)


def _end(producer: KafkaProducer, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except kafka_errors.KafkaTimeoutError:  # unsent records: `close` gives up half-way then
        producer._sender.force_close()
