"""Three ways to read, over what `pipeline/stage.py` shares.

- `run_batch`: a group member; many records per transaction (verification, difficulty).
- `run_concurrent`: a group member; many records in flight that finish out of order (generation).
- `run_follow`: no group; the handler keeps its own offsets and may take long (learning).

What goes wrong is told apart here and nowhere else:

    Poison               the record is dead-lettered, in the transaction that commits its offset
    Retryable            the records are handled again, one by one, `TRIES` times; then dead-lettered
    LogUnavailable       wait; a transaction is tried again as it is, what was being handled is read again
    Fenced               another member holds the partition: read again; three times in a row: this process is a zombie
    OwnFault             the service fails at what no record asked for (choosing what to try): the process ends
    the machine's fault  no room, no memory, no files left, a disk that fails: no record's fault, the process ends
    any other error      on one record: dead-lettered with its error; without a record: the process ends
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Generator, Iterable
from typing import Protocol

from google.protobuf.message import Message

from pipeline import records
from pipeline.errors import Fenced, LogUnavailable, OwnFault, Poison, Retryable
from pipeline.log.api import GroupReader, Position, Record, Send
from pipeline.offsets import Token, Unfinished
from pipeline.stage import TRIES, Decoded, Output, Stage

log = logging.getLogger(__name__)

Written = list[tuple[str, int, int]]
Transactions = Generator[list[Send], Written, None]
ZOMBIE_AFTER = 3
MAX_RECORDS = 500
OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class BatchHandler(Protocol):
    """Nouns in, outputs out; called with none at every tick. Its outputs and its reading are committed together."""

    tick_s: float

    def restore(self) -> None:
        """Make its state what the log says: at start, and after a transaction that did not commit."""
        ...

    def __call__(self, nouns: list[Message], offsets: dict[Position, int]) -> list[Output]:
        """Handle these; `offsets` are the next ones to read once it is committed."""
        ...

    def poison(self, ids: dict[str, str], reason: str) -> list[Output]:
        """What to say of a record that could not be read or handled, from its headers' ids."""
        ...

    def waiting_for(self) -> str:
        """What it waits for when nothing comes."""
        ...

    def idle(self) -> bool:
        """Nothing is left to do: a leaving process may end."""
        ...


class Done(Protocol):
    """A finished record and what to write for it."""

    token: Token
    outputs: list[Output]


class ConcurrentHandler(Protocol):
    """Takes requests, finishes them in any order."""

    def room(self) -> int:
        """Records it would take now."""
        ...

    def take(self, request: Message, token: Token) -> None:
        """Begin one."""
        ...

    def done(self, timeout: float) -> list[Done]:
        """What has finished; empty after `timeout` seconds."""
        ...

    def poison(self, ids: dict[str, str], reason: str) -> list[Output]:
        """What to say of a record that could not be read."""
        ...

    def waiting_for(self) -> str:
        """What it waits for when nothing comes."""
        ...

    def drain(self, end_now: bool) -> None:
        """Take nothing new; with `end_now` end what runs."""
        ...


class FollowHandler(Protocol):
    """Keeps its own offsets; yields one list of records per transaction and is sent where they were written."""

    finished: bool

    def start(self) -> Transactions:
        """Before the first read."""
        ...

    def offsets(self) -> dict[Position, int]:
        """Where to read from."""
        ...

    def __call__(self, found: list[Decoded], now_ms: int) -> Transactions:
        """Handle these, and work."""
        ...

    def poison(self, ids: dict[str, str], reason: str) -> None:
        """A record could not be read."""
        ...

    def waiting_for(self) -> str:
        """What it waits for when nothing comes."""
        ...


def next_offsets(found: Iterable[Record]) -> dict[Position, int]:
    """One past the last record of each partition."""
    return {(record.topic, record.partition): record.offset + 1 for record in found}


def run_batch(stage: Stage, handler: BatchHandler, topics: list[str], group: str, writer_id: str) -> None:
    """Handle records in batches until the process is to end."""
    stage.open(writer_id)
    reader = _join(stage, topics, group)
    fenced = 0
    try:
        handler.restore()
        while not (stage.life.stopped or (stage.life.leaving and handler.idle())):
            found = stage.poll(lambda: reader.poll(handler.tick_s, MAX_RECORDS), handler.waiting_for())
            try:
                _handle(stage, handler, reader, found)
                fenced = 0
            except (Fenced, LogUnavailable) as error:
                fenced = fenced + 1 if isinstance(error, Fenced) else 0
                _read_again(stage, reader, error, fenced)
                handler.restore()
    finally:
        reader.close()
        stage.writer.close()


def _join(stage: Stage, topics: list[str], group: str) -> GroupReader:
    full = [stage.names.topic(topic) for topic in topics]
    stage.expect(full)
    return stage.patiently(lambda: stage.log.group(stage.names.own(group), full, stage.worker_id))


def _read_again(stage: Stage, reader: GroupReader, error: Exception, fenced: int) -> None:
    stage.meter.add("sluice_stage_transactions_total", result=type(error).__name__)
    log.warning("the transaction did not commit: %s", error)
    if fenced >= ZOMBIE_AFTER:
        raise error
    stage.life.sleep(0.05)
    stage.patiently(reader.rewind)


def _handle(stage: Stage, handler: BatchHandler, reader: GroupReader, found: list[Record]) -> None:
    begun = time.monotonic()
    good, bad = stage.decode(found)
    outputs = _last_words(stage, handler, bad)
    try:
        outputs += handler([noun for _, noun in good], next_offsets(found))
    except (Fenced, LogUnavailable):
        raise
    except Exception as error:  # the fault boundary: what one record breaks is that record's dead letter
        if not good or _no_records_fault(error):
            raise
        log.warning(
            "a batch of %d failed (%s: %s); handling its records one by one", len(good), type(error).__name__, error
        )
        handler.restore()
        _one_by_one(stage, handler, reader, good, outputs)
        return
    if outputs or found:
        stage.commit(stage.encode(outputs), next_offsets(found), reader)
        stage.meter.worked(time.monotonic() - begun)
    stage.count((record for record, _ in good), "handled")


def _last_words(
    stage: Stage, handler: BatchHandler | ConcurrentHandler, bad: list[tuple[Record, Poison]]
) -> list[Output]:
    outputs: list[Output] = []
    for record, error in bad:
        outputs.append(stage.letter(record, error, 1))
        outputs += handler.poison(records.ids(record), "poison")
    return outputs


def _no_records_fault(error: Exception) -> bool:
    """Would every record fail alike? Dead-lettering them, one after the other, would empty the topic."""
    return isinstance(error, OwnFault | MemoryError) or (isinstance(error, OSError) and error.errno in OF_THE_MACHINE)


def _one_by_one(
    stage: Stage, handler: BatchHandler, reader: GroupReader, good: list[Decoded], first: list[Output]
) -> None:
    for one in good:
        outputs = first + _try(stage, handler, one)
        first = []
        stage.commit(stage.encode(outputs), next_offsets([one.record]), reader)


def _try(stage: Stage, handler: BatchHandler, one: Decoded) -> list[Output]:
    attempts = 0
    while True:
        attempts += 1
        try:
            outputs = handler([one.noun], next_offsets([one.record]))
        except (Fenced, LogUnavailable):
            raise
        except Exception as error:  # the same fault boundary, for one record
            if _no_records_fault(error):
                raise
            handler.restore()
            if isinstance(error, Retryable) and attempts < TRIES:
                stage.count([one.record], "retried")
                stage.life.sleep(0.05 * 2**attempts)
                continue
            log.exception("a record is dead-lettered")
            return [stage.letter(one.record, error, attempts), *handler.poison(records.ids(one.record), "poison")]
        stage.count([one.record], "handled")
        return outputs


def run_concurrent(stage: Stage, handler: ConcurrentHandler, topics: list[str], group: str, writer_id: str) -> None:
    """Keep the handler full until the process is to end; commit the lowest unfinished offsets."""
    stage.open(writer_id)
    reader = _join(stage, topics, group)
    loop = _Concurrent(stage, handler, reader)
    try:
        while not stage.life.stopped:
            loop.turn()
            if stage.life.leaving and not loop.unfinished and not loop.outbox:
                return
    finally:
        reader.close()
        stage.writer.close()


class _Concurrent:
    """One turn: read what there is room for, collect what is done, commit both."""

    def __init__(self, stage: Stage, handler: ConcurrentHandler, reader: GroupReader) -> None:
        self.stage, self.handler, self.reader = stage, handler, reader
        self.unfinished = Unfinished()
        self.outbox: list[Output] = []
        self.taken: dict[Token, Record] = {}
        self.fenced = 0

    def turn(self) -> None:
        self._obey()
        self._read()
        for done in self.handler.done(0.01 if self.unfinished else 0.0):
            self._finish(done.token, done.outputs, "handled")
        self.stage.meter.set("sluice_stage_in_flight", len(self.unfinished))
        self._commit()

    def _obey(self) -> None:
        life = self.stage.life
        if life.leaving or life.run_ends:
            self.handler.drain(end_now=life.run_ends)

    def _read(self) -> None:
        room = max(0, self.handler.room())
        timeout = 0.0 if self.unfinished else 0.2
        reason = self.handler.waiting_for()
        if room == 0 and timeout:
            self.stage.life.sleep(0.05)
        with_room = min(room, MAX_RECORDS)
        begun = time.monotonic()
        found = self.stage.poll(lambda: self.reader.poll(timeout if room else 0.0, with_room), reason)
        if room == 0 and not self.unfinished:
            self.stage.meter.waited(reason, max(0.0, timeout - (time.monotonic() - begun)))
        self.unfinished.keep(self.reader.assigned())
        good, bad = self.stage.decode(found)
        for record, error in bad:
            self._refuse(record, error)
        for record, noun in good:
            delivered_again = _token(record) in self.taken
            self._take(record)
            if not delivered_again:
                self._hand_over(record, noun)

    def _hand_over(self, record: Record, noun: Message) -> None:
        try:
            self.handler.take(noun, _token(record))
        except Poison as error:
            self._refuse(record, error)

    def _refuse(self, record: Record, error: Poison) -> None:
        self._take(record)
        self._finish(_token(record), _last_words(self.stage, self.handler, [(record, error)]), "")

    def _take(self, record: Record) -> None:
        self.unfinished.take(_token(record))
        self.taken[_token(record)] = record

    def _finish(self, token: Token, outputs: list[Output], result: str) -> None:
        # Outputs stay in the outbox until a transaction holds them: what was sampled is not sampled again.
        self.outbox += outputs
        self.unfinished.finish(token)
        record = self.taken.pop(token, None)
        if record is not None and result:
            self.stage.count([record], result)

    def _commit(self) -> None:
        offsets = self.unfinished.committable()
        if not (self.outbox or offsets):
            return
        try:
            self.stage.commit(self.stage.encode(self.outbox), offsets, self.reader)
        except Fenced as error:
            self.fenced += 1
            _read_again(self.stage, self.reader, error, self.fenced)
            self.unfinished.clear()
            return
        self.fenced = 0
        self.outbox = []
        self.unfinished.committed(offsets)


def _token(record: Record) -> Token:
    return record.topic, record.partition, record.offset


def run_follow(stage: Stage, handler: FollowHandler, writer_id: str, poll_s: Callable[[], float]) -> None:
    """Feed the handler and write what it yields, until it has finished or the process is to end."""
    stage.open(writer_id)
    _write(stage, handler.start())
    stage.expect(topic for topic, _ in handler.offsets())
    follower = stage.patiently(lambda: stage.log.follow(handler.offsets()))
    try:
        while not stage.life.stopped:
            found = stage.poll(lambda: follower.poll(poll_s(), 4 * MAX_RECORDS), handler.waiting_for())
            good, bad = stage.decode(found)
            if bad:
                _write(stage, iter([stage.encode([stage.letter(record, error, 1) for record, error in bad])]))
            for record, _ in bad:
                handler.poison(records.ids(record), "poison")
            _write(stage, handler(good, int(time.time() * 1000)))
            stage.count((record for record, _ in good), "handled")
            if stage.life.leaving and handler.finished:
                return
    finally:
        follower.close()
        stage.writer.close()


def _write(stage: Stage, transactions: Iterable[list[Send]]) -> None:
    """One transaction per yielded list; a generator is sent where its records are."""
    iterator = iter(transactions)
    sends = next(iterator, None)
    while sends is not None:
        written = stage.commit(sends, {}, None)
        try:
            sends = iterator.send(written) if isinstance(iterator, Generator) else next(iterator)
        except StopIteration:
            return
